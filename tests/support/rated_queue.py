"""Items of the rating queue without an engine, and people who rate them."""

from __future__ import annotations

import random

from storage import conversations, people, prompts, queue, queue_items, rankings
from storage.database import Database
from storage.queue import Terms

USUAL = Terms()
NEVER = random.Random(0)
NEVER.random = lambda: 1.0  # draws no repeat
ALWAYS = random.Random(1)
ALWAYS.random = lambda: 0.0  # a repeat whenever there is one


def fill_pool(db: Database, count: int) -> list:
    prompts.add_prompts(db, [(f"Prompt {number}?", "", []) for number in range(1, count + 1)])
    return prompts.list_prompts(db)


def make_item(db: Database, prompt, version: str = "v1", states=("complete",) * 4) -> int:
    """Replies to a prompt as the queue makes them; the turn's id."""
    people.ensure_local_person(db)
    conversation = queue_items.new_item_conversation(db, prompt)
    rows = [conversations.NewReply(place, version, place, {}) for place in range(len(states))]
    turn = conversations.create_turn(db, conversation.id, prompt.text, None, rows)
    for reply, state in zip(turn.replies, states, strict=True):
        if state != "streaming":
            reason = {"complete": "stop", "interrupted": "interrupted"}[state]
            conversations.finish_reply(
                db, reply.id, text=f"{prompt.text} {reply.position}", token_ids=[5],
                logprobs=[-0.5], finish_reason=reason, state=state,
            )  # fmt: skip
    queue_items.add_item(db, turn.id, prompt.id)
    return turn.id


def make_items(db: Database, count: int, version: str = "v1") -> list[int]:
    return [make_item(db, prompt, version) for prompt in fill_pool(db, count)]


def team(db: Database, count: int) -> list[int]:
    people.ensure_local_person(db)
    return [people.create_person(db, f"rater {number}").id for number in range(1, count + 1)]


def next_turn(db: Database, person: int, terms: Terms = USUAL, rng=NEVER) -> int | None:
    found = queue.take(db, person, terms, rng)
    return None if found is None else found.turn_id


def rate(db: Database, turn_id: int, person: int, ranks=(1, 2, 3, 4), **more):
    """Rank the replies in the order of their text, however they are shown."""
    replies = sorted(conversations.get_turn(db, turn_id).replies, key=lambda reply: reply.text)
    by_id = {reply.id: rank for reply, rank in zip(replies, ranks, strict=True)}
    return rankings.save_ranking(db, turn_id, person, by_id, **more)
