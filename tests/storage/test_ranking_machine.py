"""Saves, revisions, undos and erasures in any order, against lists in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chatrlhf.errors import ConflictError
from storage import rankings
from storage.conversations import (
    NewReply,
    create_conversation,
    create_turn,
    delete_turn,
    finish_reply,
)
from storage.database import open_database
from storage.people import create_person

REPLIES = 3
RANKS = st.lists(st.integers(1, REPLIES), min_size=REPLIES, max_size=REPLIES)


def dense(ranks: list[int]) -> list[int]:
    return [1 + len({other for other in ranks if other < rank}) for rank in ranks]


class RankingMachine(RuleBasedStateMachine):
    """The oracle: per (turn, person) a stack of (ranking id, ranks); the top one is active."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.db = open_database(Path(self.folder.name) / "x.db")
        self.db.rows("PRAGMA synchronous = OFF")  # speed; nothing here is killed
        self.people = [create_person(self.db, name).id for name in ("ann", "bob")]
        self.chat = create_conversation(self.db, self.people[0]).id
        self.replies: dict[int, list[int]] = {}
        self.stacks: dict[tuple[int, int], list[tuple[int, list[int]]]] = {}
        self.keys: dict[tuple[int, str], tuple[int, int, list[int]]] = {}
        self.greatest = 0
        for _ in range(2):
            self.add_turn()

    def add_turn(self) -> None:
        rows = [NewReply(place, "v0", 0, {}) for place in range(REPLIES)]
        turn = create_turn(self.db, self.chat, "Hello", None, rows)
        for reply in turn.replies:
            finish_reply(
                self.db,
                reply.id,
                text="a",
                token_ids=[],
                logprobs=[],
                finish_reason="stop",
                state="complete",
            )
        self.replies[turn.id] = [reply.id for reply in turn.replies]

    def pushed(self, turn: int, person: int, ranks: list[int], ranking_id: int) -> None:
        assert ranking_id > self.greatest
        self.greatest = ranking_id
        self.stacks.setdefault((turn, person), []).append((ranking_id, dense(ranks)))

    @rule(data=st.data(), person=st.integers(0, 1), ranks=RANKS)
    def save(self, data: st.DataObject, person: int, ranks: list[int]) -> None:
        turn = data.draw(st.sampled_from(sorted(self.replies)))
        sent = dict(zip(self.replies[turn], ranks, strict=True))
        saved = rankings.save_ranking(self.db, turn, self.people[person], sent)
        self.pushed(turn, self.people[person], ranks, saved.id)

    @rule(data=st.data(), ranks=RANKS, key=st.sampled_from("xy"))
    def save_with_key(self, data: st.DataObject, ranks: list[int], key: str) -> None:
        turn = data.draw(st.sampled_from(sorted(self.replies)))
        person = self.people[0]
        sent = dict(zip(self.replies[turn], ranks, strict=True))
        known = self.keys.get((person, key))
        if known is not None and known[1:] != (turn, dense(ranks)):
            with pytest.raises(ConflictError):
                rankings.save_ranking(self.db, turn, person, sent, idempotency_key=key)
            return
        saved = rankings.save_ranking(self.db, turn, person, sent, idempotency_key=key)
        if known is None:
            self.keys[person, key] = (saved.id, turn, dense(ranks))
            self.pushed(turn, person, ranks, saved.id)
        assert saved.id == self.keys[person, key][0]

    @precondition(lambda self: any(self.stacks.values()))
    @rule(data=st.data(), ranks=RANKS)
    def revise(self, data: st.DataObject, ranks: list[int]) -> None:
        turn, person = data.draw(st.sampled_from(sorted(k for k, v in self.stacks.items() if v)))
        sent = dict(zip(self.replies[turn], ranks, strict=True))
        active = self.stacks[turn, person][-1][0]
        self.pushed(turn, person, ranks, rankings.revise_ranking(self.db, active, sent).id)

    @precondition(lambda self: any(self.stacks.values()))
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        stack = self.stacks[
            data.draw(st.sampled_from(sorted(k for k, v in self.stacks.items() if v)))
        ]
        gone, _ = stack.pop()
        active = rankings.withdraw_ranking(self.db, gone)
        assert (active.id if active else None) == (stack[-1][0] if stack else None)
        with pytest.raises(ConflictError):
            rankings.withdraw_ranking(self.db, gone)

    @rule(data=st.data())
    def erase_turn(self, data: st.DataObject) -> None:
        turn = data.draw(st.sampled_from(sorted(self.replies)))
        delete_turn(self.db, turn)
        del self.replies[turn]
        self.stacks = {key: stack for key, stack in self.stacks.items() if key[0] != turn}
        self.keys = {key: known for key, known in self.keys.items() if known[1] != turn}
        self.add_turn()

    @invariant()
    def the_active_rankings_are_the_tops_of_the_stacks(self) -> None:
        expected = sorted(
            (stack[-1][0], turn, person, dict(zip(self.replies[turn], stack[-1][1], strict=True)))
            for (turn, person), stack in self.stacks.items()
            if stack
        )
        listed = rankings.list_rankings(self.db)
        assert [(r.id, r.turn_id, r.person_id, r.ranks) for r in listed] == expected
        assert rankings.newest_id(self.db) == max((row[0] for row in expected), default=0)
        middle = expected[len(expected) // 2][0] if expected else 0
        assert rankings.count_new(self.db, middle) == sum(row[0] > middle for row in expected)
        examples = rankings.ranked_turns(self.db)
        assert [(e.ranking_id, list(e.ranks)) for e in examples] == [
            (row[0], list(row[3].values())) for row in expected
        ]

    def teardown(self) -> None:
        assert self.db.rows("PRAGMA foreign_key_check") == []
        self.db.close()
        self.folder.cleanup()


TestRankingMachine = RankingMachine.TestCase
TestRankingMachine.settings = settings(max_examples=15, stateful_step_count=25)
