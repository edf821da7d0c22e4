"""Versions, duels and their rankings, written as server and trainer would have written them."""

from __future__ import annotations

import shutil

from chatrlhf.models.adapter_files import AdapterShape, Component, read_version, write_version
from storage import conversations, evidence, rankings, versions
from storage.conversations import NewReply
from storage.records import Prediction


def publish_copy(db, versions_dir, parent="v0", *, promote=True, reward=None):
    """A version with the policy of v0, and a reward model if given as (lora, terms); its name."""
    name = versions.next_version_name(db)
    files = read_version(versions_dir / "v0")
    components = {"policy": files.policy}
    if reward is not None:
        lora, terms = reward
        components["reward"] = Component(lora, terms.state())
    modules = sorted({key.split(".lora_")[0].rpartition(".")[2] for key in files.policy.lora})
    rank = next(iter(files.policy.lora.values())).shape[0]
    shape = AdapterShape(rank, 16.0, tuple(modules))
    fields = {"base": files.manifest["base"], "parent": parent, "last_ranking_id": 0}
    sha256 = write_version(versions_dir, name, components, shape, fields)
    metrics = {"rankings": 20, "reward": {"accuracy": 0.7}}
    versions.register_version(db, name, parent, None, sha256, metrics, "A copy of v0.")
    if promote:
        versions.promote(db, name, "test")
    return name


def copy_v0(source_dir, versions_dir):
    """The folder of v0 for a data folder without a server."""
    shutil.copytree(source_dir / "v0", versions_dir / "v0")


def turn_of(db, person_id, names, text="Hello", slot="duel", texts=None):
    """A finished turn whose replies are of these versions."""
    chat = conversations.create_conversation(db, person_id, title=text[:40])
    rows = [NewReply(place, name, place, {}, slot) for place, name in enumerate(names)]
    turn = conversations.create_turn(db, chat.id, text, None, rows)
    for reply in turn.replies:
        words = texts[reply.position] if texts else f"Reply {reply.position} to {text}."
        conversations.finish_reply(
            db, reply.id, text=words, token_ids=[1], logprobs=[-1.0], finish_reason="stop",
            state="complete",
        )  # fmt: skip
    return conversations.get_turn(db, turn.id)


def duel(db, person_id, newer, older, outcome, text, more=0):
    """A ranked duel; ``outcome`` 1: the newer was preferred, 0: the older, 0.5: a tie.

    Replies of the newer one are ``more`` words longer.
    """
    names = (newer, older, older, newer)
    longer = {newer: " word" * max(more, 0), older: " word" * max(-more, 0)}
    texts = [f"A reply to {text}{longer[name]}" for name in names]
    turn = turn_of(db, person_id, names, text, texts=texts)
    best = {1: newer, 0: older}.get(outcome)
    ranks = {reply.id: 1 if best in (None, reply.version) else 2 for reply in turn.replies}
    return rankings.save_ranking(db, turn.id, person_id, ranks)


def foretell(db, rankings_and_right, version, pairs=6):
    """Predictions of rankings: so many of their pairs were right."""
    evidence.add_predictions(
        db, [Prediction(one.id, version, right, pairs) for one, right in rankings_and_right]
    )
