"""Export, import, export: nothing is lost, and nothing comes twice."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path

import pytest
from exchanged import dump, exported, lines, load
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils.utils import sqlite3

from chatrlhf.errors import StorageError
from storage import conversations, demonstrations, labels, people, rankings
from storage.conversations import NewReply
from storage.database import open_database
from storage.records import Choice, Chosen, Message

TABLES = (
    *("people", "conversations", "turns", "replies", "choices", "rankings", "ranking_entries"),
    *("labels", "demonstrations"),
)
# Of no conversation: accounts, training, the pool.
OTHER_TABLES = (
    *("sessions", "api_keys", "invitations", "audit_log", "state", "prompts", "versions"),
    *("aliases", "runs", "run_metrics", "run_samples", "run_events", "predictions"),
    *("sqlite_sequence", "imports", "imported_rows"),
    *("queue_items", "queue_assignments", "queue_goals"),
)
# What is not of the record: a hash that covers a turn's id, when people came, and whether a duel
# counts here (an imported one does not).
HIDDEN = dict.fromkeys(TABLES, ()) | {
    "rankings": ("body_sha256",),
    "people": ("created_at",),
    "turns": ("revealed_after",),
}
STATES = {"complete": ("stop", "length"), "cancelled": ("cancelled",)}
# Blank texts are refused on entry, NUL and half characters cannot be stored.
CHARACTERS = st.characters(exclude_characters="\x00", exclude_categories=["Cs"])
TEXT = st.text(CHARACTERS, min_size=1, max_size=30).filter(lambda text: text.strip())


def contents(db) -> dict[str, list[dict]]:
    """All rows, without the columns of `HIDDEN`."""
    return {
        table: [
            {name: value for name, value in row.items() if name not in HIDDEN[table]}
            for row in db.rows(f"SELECT * FROM {table} ORDER BY 1, 2, 3")
        ]
        for table in TABLES
    }


@pytest.fixture
def full(db):
    """Two people, branches, a tie, a revision, an undone ranking, all bad, labels, and more."""
    me, bob = people.ensure_local_person(db), people.create_person(db, "Bób")
    chat = conversations.create_conversation(db, me.id, "Be \u200b brief", "Tïtle")
    first = turn(db, chat.id, "Hi \u202eolleh", None, ("complete",) * 3)
    second = turn(db, chat.id, "And?", first.replies[1].id, ("complete", "cancelled"))
    turn(db, chat.id, "Other branch", first.replies[2].id, ("interrupted", "complete"))
    ids = [reply.id for reply in first.replies]
    rankings.save_ranking(db, first.id, me.id, dict(zip(ids, (1, 2, 3), strict=True)))
    rankings.save_ranking(
        db,
        first.id,
        me.id,
        dict(zip(ids, (2, 1, 1), strict=True)),
        strength=4,
        comment="Same\nhere",
        idempotency_key="a key",
    )
    theirs = rankings.save_ranking(db, first.id, bob.id, dict(zip(ids, (3, 1, 2), strict=True)))
    rankings.withdraw_ranking(db, theirs.id)
    rankings.save_ranking(db, second.id, bob.id, {}, all_bad=True)
    labels.save_label(db, ids[0], me.id, "toxic", True)
    labels.save_label(db, ids[0], bob.id, "toxic", False)
    demonstrations.save_demonstration(db, bob.id, "Better\r\n", turn_id=second.id)
    messages = [Message("system", "s"), Message("user", "alone?")]
    demonstrations.save_demonstration(db, me.id, "Yes", messages=messages)
    conversations.create_conversation(db, me.id)
    return db


def turn(db, conversation_id, text, parent, states):
    rows = [
        NewReply(place, f"v{place}", 2**62 + place, {"temperature": 0.9, "top_p": None}, "duel")
        for place in range(len(states))
    ]
    choice = Choice("best", 8, "v7", (0.25, -1.5), "slow")
    made = conversations.create_turn(db, conversation_id, text, parent, rows, choice)
    for reply, state in zip(made.replies, states, strict=True):
        conversations.finish_reply(
            db,
            reply.id,
            text=f"reply {reply.position} \U0001f469\u200d\U0001f52c",
            token_ids=[0, 2**32 - 1],
            logprobs=[-0.1, float("-inf"), float("nan")],
            finish_reason={"complete": "length"}.get(state, state),
            state=state,
            chosen=Chosen(reply.position + 3, "best", 0.125, -1.5) if reply.position else None,
        )
    return conversations.get_turn(db, made.id)


def test_every_table_is_exported_or_of_no_conversation(db):
    """A new table belongs into the archive, or into the list of those that do not."""
    rows = db.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")
    names = {row["name"] for row in rows if not row["name"].startswith("words_of_")}  # indexes
    assert names == {*TABLES, *OTHER_TABLES}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_every_row_comes_back(full, new_db, form):
    other = new_db()
    report = load(other, dump(full, form))
    assert (report.failed, report.duplicates, report.records) == (0, 0, 3)
    assert report.added.rankings == 4
    assert contents(other) == contents(full)
    assert [*conversations.damaged_replies(other)] == []


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_second_import_and_one_into_the_origin_add_nothing(full, new_db, form):
    data, other = dump(full, form), new_db()
    load(other, data)
    for where in (other, full):
        before = contents(where)
        report = load(where, data)
        assert (report.duplicates, report.failed, bool(report.added)) == (3, 0, False)
        assert contents(where) == before
    if form == "jsonl":  # the same file twice in one
        assert load(new_db(), data + data).duplicates == 3


def test_a_later_export_adds_what_is_new(full, new_db):
    other = new_db()
    load(other, dump(full))
    me = people.ensure_local_person(full)
    chat = conversations.list_conversations(full, me.id)[-1]
    last = conversations.list_turns(full, chat.id)[0]
    turn(full, chat.id, "More", last.replies[0].id, ("complete", "complete"))
    ranks = {reply.id: place for place, reply in enumerate(last.replies, start=1)}
    rankings.save_ranking(full, last.id, me.id, ranks, comment="Now I think so")
    labels.save_label(full, last.replies[0].id, me.id, "toxic", False)
    report = load(other, dump(full))
    assert report.added.turns == report.added.rankings == report.added.labels == 1
    assert report.added.conversations == report.added.demonstrations == 0
    active = rankings.active_ranking(other, last.id, me.id)
    assert (active.comment, active.order) == ("Now I think so", "1>2>3")
    assert contents(other) == contents(full)


def test_an_older_export_does_not_replace_a_newer_ranking(full, new_db):
    old = dump(full)
    me = people.ensure_local_person(full)
    (first, *_) = rankings.list_rankings(full, person_id=me.id)
    ranks = {reply_id: 1 for reply_id in first.ranks}
    newer = rankings.save_ranking(full, first.turn_id, me.id, ranks)
    other = new_db()
    load(other, dump(full))
    load(other, old)
    assert rankings.active_ranking(other, first.turn_id, me.id).order == newer.order == "1=2=3"


@st.composite
def chats(draw):
    """Conversations as lists of turns: (parent's place or None, text, replies, opinions)."""
    made = []
    for _ in range(draw(st.integers(1, 3))):
        turns = []
        for number in range(draw(st.integers(0, 3))):
            count = draw(st.integers(1, 3))
            parent = draw(st.one_of(st.none(), st.integers(0, number - 1))) if number else None
            replies = [
                (draw(st.text(CHARACTERS, max_size=20)), draw(st.sampled_from(sorted(STATES))))
                for _ in range(count)
            ]
            ranks = st.lists(st.integers(1, count), min_size=count, max_size=count)
            opinions = draw(
                st.lists(
                    st.tuples(
                        st.sampled_from(["local", "ann"]),
                        ranks,
                        st.one_of(st.none(), st.integers(1, 5)),
                        st.text(CHARACTERS, max_size=9),
                        st.booleans(),
                    ),
                    max_size=3,
                )
            )
            turns.append((parent, draw(TEXT), replies, opinions))
        made.append((draw(st.sampled_from(["", "Be kind"])), turns))
    return made


def build(db, plan):
    for system_prompt, turns in plan:
        me = people.ensure_local_person(db)
        chat = conversations.create_conversation(db, me.id, system_prompt)
        made = []
        for parent, text, replies, opinions in turns:
            rows = [NewReply(place, "v1", place, {"k": [1, None]}) for place in range(len(replies))]
            parent_id = None if parent is None else made[parent].replies[0].id
            new = conversations.create_turn(db, chat.id, text, parent_id, rows)
            made.append(new)
            for reply, (answer, state) in zip(new.replies, replies, strict=True):
                conversations.finish_reply(
                    db,
                    reply.id,
                    text=answer,
                    token_ids=[1],
                    logprobs=[0.1],
                    finish_reason=STATES[state][0],
                    state=state,
                )
            for name, ranks, strength, comment, all_bad in opinions:
                who = people.find_person(db, name) or people.create_person(db, name)
                by_id = dict(zip((one.id for one in new.replies), ranks, strict=True))
                rankings.save_ranking(
                    db, new.id, who.id, by_id, strength=strength, comment=comment, all_bad=all_bad
                )


@settings(max_examples=25)
@given(chats())
def test_any_chats_survive_the_round_trip(plan):
    with tempfile.TemporaryDirectory() as folder:
        dbs = [open_database(Path(folder) / f"{name}.db") for name in ("one", "two", "three")]
        for db in dbs:
            db.rows("PRAGMA synchronous = OFF")  # speed; nothing here is killed
            people.ensure_local_person(db)
        build(dbs[0], plan)
        assert load(dbs[1], dump(dbs[0])).failed == 0
        assert contents(dbs[1])["rankings"] == contents(dbs[0])["rankings"]
        assert exported(dbs[1]) == exported(dbs[0])
        assert load(dbs[2], dump(dbs[1], "parquet")).failed == 0
        assert exported(dbs[2]) == exported(dbs[0])
        again = load(dbs[2], dump(dbs[0]))
        assert (bool(again.added), again.duplicates) == (False, len(plan))
        for db in dbs:
            db.close()


# --- what a record may not be -------------------------------------------------------------


def change(row, path, value):
    changed = copy.deepcopy(row)
    *way, last = path
    inner = changed
    for step in way:
        inner = inner[step]
    inner[last] = value
    return changed


RANKING = ("turns", 0, "rankings", 0)
REPLY = ("turns", 0, "replies", 0)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("format",), "chatrlhf-2", "update it"),
        (("type",), "person", "conversation, demonstration"),
        (("turns", 0, "text"), "", "turn 1: the message is empty"),
        (("turns", 0, "text"), 7, "turns.0.text: Input should be a valid string"),
        (("turns", 0, "text"), "x" * 70_000, "the limit is 65,536"),
        (("turns", 1, "parent_reply_id"), 99, "reply 99, which no turn before it has"),
        (("turns", 0, "created_at"), "yesterday", "no time such as"),
        ((*REPLY, "seed"), 2**70, "64 bits"),
        ((*REPLY, "position"), 1, "at 0 to K-1"),
        ((*REPLY, "state"), "streaming", "streaming"),
        ((*REPLY, "token_ids"), [-1], "token ids"),
        ((*REPLY, "text"), "a\x00b", "NUL"),
        ((*REPLY, "logprobs"), ["much"], "logprobs"),
        ((*RANKING, "ranks", 0, "rank"), 9, "it must be 1 to 3"),
        ((*RANKING, "ranks", 0, "reply_id"), 999, "reply 999"),
        ((*RANKING, "strength"), 6, "strength is 6"),
        ((*RANKING, "person"), "", "name of a person"),
        (("turns",), "many", "turns"),
    ],
)
def test_a_wrong_record_is_refused_whole_and_others_are_kept(full, new_db, path, value, words):
    first, *rest = exported(full)
    other = new_db()
    report = load(other, [change(first, path, value), *rest])
    (error,) = report.errors
    assert error.line == 1
    assert words in error.message, error.message
    assert (report.failed, report.records) == (1, 3)
    assert report.added.demonstrations == report.added.conversations == 1
    assert other.rows("SELECT * FROM turns") == []
    assert load(other, [first]).added.rankings == 4  # the corrected line goes in


def test_who_may_import_the_ratings_of_others(full, new_db):
    other = new_db()
    ann = people.create_person(other, "ann", "rater")
    report = load(other, dump(full), ann)
    assert report.failed == 1  # the conversation with Bob's ratings
    assert "only an admin" in report.errors[0].message
    assert people.find_person(other, "Bób") is None
    assert report.added.demonstrations == 1  # local on another computer is ann here
    mine = load(other, dump(full), ann, mine=True)
    assert mine.failed == 0
    rows = other.rows("SELECT DISTINCT person_id FROM rankings")
    assert rows == [{"person_id": ann.id}]


def test_one_person_exports_only_their_own(full):
    bob = people.find_person(full, "Bób")
    assert dump(full, person_id=bob.id) == b""
    me = people.ensure_local_person(full)
    rows = [json.loads(line) for line in dump(full, person_id=me.id).splitlines()]
    said = [ranking["person"] for turn in rows[0]["turns"] for ranking in turn["rankings"]]
    assert said == ["local", "local"]
    assert all(turn["demonstrations"] == [] for turn in rows[0]["turns"])


def test_a_turn_that_still_streams_waits_for_the_next_export(full):
    me = people.ensure_local_person(full)
    chat = conversations.list_conversations(full, me.id)[-1]
    conversations.create_turn(full, chat.id, "later", None, [NewReply(0, "v0", 1, {})])
    assert "later" not in [turn["text"] for turn in exported(full)[0]["turns"]]


def test_an_import_that_broke_off_is_run_again(full, new_db, monkeypatch):
    other = new_db()
    data = lines(*exported(full))
    from storage.restore import Restorer

    def fail(self, *_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Restorer, "demonstration", fail)
        with pytest.raises(StorageError, match="import the file again later"):
            load(other, data)
    assert other.rows("SELECT * FROM demonstrations WHERE turn_id IS NULL") == []
    report = load(other, data)
    assert report.failed == 0
    assert contents(other) == contents(full)
