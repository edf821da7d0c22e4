"""A data folder with a tiny model, rows and rounds: the whole loop without a server, in seconds.

The rater of these tests likes the letter a, and replies of three letters at most: longer ones of
a's would rightly fail the gate against repetition. The model first learns, from demonstrations, to
answer with two to four letters and stop.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

import torch

from chatrlhf.loop.publish import publish_starter, verify_version
from chatrlhf.loop.worker import run_one
from chatrlhf.models.adapter_files import read_version
from chatrlhf.models.base_model import load_base_model
from chatrlhf.models.lora import LoraBank
from chatrlhf.models.policy import Policy
from chatrlhf.settings import load_settings
from chatrlhf.training.rollout import collect_rollout
from storage import conversations, demonstrations, people, prompts, rankings, runs, versions
from storage.conversations import NewReply
from storage.database import open_database

LETTERS = "abcd"
REPLIES = 4
TOKENS = 12

SETTINGS = {
    "model": {"quantization": "fp32", "lora_rank": 8, "lora_alpha": 16.0},
    "sft": {"learning_rate": 2e-2, "epochs": 20, "batch_size": 16, "minimum_new": 8},
    "reward": {"learning_rate": 5e-3, "head_learning_rate": 1e-2, "epochs": 8},
    "ppo": {
        "learning_rate": 3e-3,
        "value_learning_rate": 5e-3,
        "iterations": 12,
        "batch_size": 32,
        "max_new_tokens": TOKENS,
        "kl_coefficient": 0.02,
    },
    "round": {"gate_prompts": 16, "micro_batch": 32},
}


def true_score(text):
    """Share of a's, of at least three letters; each letter beyond three costs a quarter."""
    return text.count("a") / max(len(text), 3) - 0.25 * max(len(text) - 3, 0)


class TinyLoop:
    """One data folder, its rows and its rounds."""

    def __init__(self, folder, model_folder, seed=0, **overrides):
        groups = {name: dict(values) for name, values in SETTINGS.items()}
        for name, values in overrides.items():
            groups.setdefault(name, {}).update(values)
        groups["model"]["name"] = str(model_folder)
        groups["round"]["seed"] = seed
        self.settings = load_settings(folder, groups, environment={})
        folder.mkdir(parents=True, exist_ok=True)
        self.db = open_database(self.settings.database_path)
        self.person = people.ensure_local_person(self.db)
        self.random = random.Random(seed)
        self.base = load_base_model(model_folder, quantization="fp32", training=True)
        model = self.settings.model
        self.bank = LoraBank(self.base.model, model.lora_rank, model.lora_alpha)
        self.bank.add("test")
        prompts.add_prompts(self.db, [(f"letters {n}", "", ["tiny"]) for n in range(60)])
        publish_starter(self.db, self.settings, self.base, self.bank)

    def demonstrate(self, count=48):
        """Write demonstrations: a few random letters."""
        for number in range(count):
            text = "".join(self.random.choices(LETTERS, k=self.random.randint(2, 4)))
            message = SimpleNamespace(role="user", content=f"letters {number}")
            demonstrations.save_demonstration(self.db, self.person.id, text, messages=[message])

    def rollout(self, texts, seed, version=None):
        """One reply of a version to each prompt, as tokens."""
        name = version or versions.get_alias(self.db, "live")
        files = read_version(verify_version(self.db, self.settings, name))
        self.bank.load_state("test", files.policy.lora)
        encode = self.base.chat_format.encode_prompt
        return collect_rollout(
            Policy(self.base, self.bank, "test"),
            [encode([SimpleNamespace(role="user", content=text)]) for text in texts],
            seed=seed,
            max_new_tokens=TOKENS,
            temperature=1.0,
        )

    def bodies(self, rollout):
        """Replies without their end tokens."""
        pairs = zip(rollout.responses, rollout.finished, strict=True)
        return [response[:-1] if finished else response for response, finished in pairs]

    def answers(self, texts, seed, version=None):
        """One reply of a version to each prompt, as (text, token ids, finished)."""
        rollout = self.rollout(texts, seed, version)
        decode = self.base.chat_format.decode
        pairs = zip(self.bodies(rollout), rollout.finished, strict=True)
        return [(decode(body), body, finished) for body, finished in pairs]

    def ask(self, count, prompts=200):
        """Ask ``count`` times, of so many prompts; for each turn, its replies as {id: text}."""
        texts = [f"letters {n}" for n in self.random.choices(range(prompts), k=count)]
        answers = self.answers([t for t in texts for _ in range(REPLIES)], seed=len(texts))
        version = versions.get_alias(self.db, "live")
        found = {}
        for at, text in enumerate(texts):
            conversation = conversations.create_conversation(self.db, self.person.id)
            rows = [NewReply(p, version, 1, {}) for p in range(REPLIES)]
            turn = conversations.create_turn(self.db, conversation.id, text, None, rows)
            found[turn.id] = {}
            for reply, (answer, tokens, finished) in zip(
                turn.replies, answers[at * REPLIES :], strict=False
            ):
                conversations.finish_reply(
                    self.db,
                    reply.id,
                    text=answer,
                    token_ids=tokens,
                    logprobs=[0.0] * len(tokens),
                    finish_reason="stop" if finished else "length",
                    state="complete",
                )
                found[turn.id][reply.id] = answer
        return found

    def rank(self, count, score=true_score, prompts=200, reversed_share=0.0):
        """Ask, answer and rank ``count`` turns by ``score``, some of them the wrong way round."""
        for turn_id, replies in self.ask(count, prompts).items():
            is_reversed = self.random.random() < reversed_share if reversed_share else False
            sign = -1.0 if is_reversed else 1.0
            self.say(turn_id, {reply: sign * score(text) for reply, text in replies.items()})

    def say(self, turn_id, scores, person=None, **extras):
        """Rank a turn by scores of its replies, {id: score}."""
        best_first = sorted(set(scores.values()), reverse=True)
        ranks = {reply: best_first.index(value) + 1 for reply, value in scores.items()}
        who = (person or self.person).id
        rankings.save_ranking(self.db, turn_id, who, ranks, **extras)

    def enqueue(self, *stages):
        """Ask for a round."""
        return runs.enqueue_run(
            self.db, stages or ("sft", "reward", "ppo"), "test", {}, rankings.newest_id(self.db)
        )

    def round(self, *stages):
        """Run a round in this process; returns its row."""
        run = self.enqueue(*stages)
        run_one(self.settings, run_id=run.id)
        return runs.get_run(self.db, run.id)

    def score_of(self, version, seed=5, count=128, score=true_score):
        """True scores of a version's replies to prompts that were never ranked."""
        texts = [f"letters {n}" for n in range(300, 300 + count)]
        return torch.tensor([score(text) for text, _, _ in self.answers(texts, seed, version)])

    def events(self, run_id):
        """Kinds and sentences of a round's timeline."""
        return [(event.kind, event.text) for event in runs.list_events(self.db, run_id)]
