"""An import is taken back as a whole, and nothing else with it."""

from __future__ import annotations

import io

import pytest
from exchanged import dump, exported, load

from chatrlhf.errors import ConflictError, NotFoundError
from chatrlhf.loop.exchange.imports import import_records
from storage import conversations, imports, labels, prompts, rankings, runs, versions
from storage.people import create_person, ensure_local_person
from storage.records import NewReply

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
EVERYTHING = [
    PAIR,
    {"prompt": "q", "completion": "written"},
    {"prompt": "for the pool"},
    {"prompt": "r", "completion": "c", "label": False},
]
KINDS = ("conversations", "turns", "replies", "rankings", "labels", "demonstrations", "prompts")


def counts(db) -> dict[str, int]:
    return {name: db.rows(f"SELECT count(*) AS n FROM {name}")[0]["n"] for name in KINDS}


def undo(db, import_id: int, **who) -> list[float]:
    return list(imports.undo_import(db, import_id, **who))


def chat_of(db, text: str = "Hello"):
    """A finished turn of two replies."""
    me = ensure_local_person(db)
    chat = conversations.create_conversation(db, me.id)
    rows = [NewReply(place, "v0", place, {}) for place in range(2)]
    turn = conversations.create_turn(db, chat.id, text, None, rows)
    for reply in turn.replies:
        conversations.finish_reply(
            db, reply.id, text=f"reply {reply.position}", token_ids=[1], logprobs=[-1.0],
            finish_reason="stop", state="complete",
        )  # fmt: skip
    return conversations.get_turn(db, turn.id)


def test_all_kinds_of_rows_go_and_the_others_stay(db) -> None:
    chat_of(db)
    prompts.add_prompts(db, [("mine", "", [])])
    before = counts(db)
    report = load(db, EVERYTHING)
    assert report.added.conversations == 2
    assert counts(db) != before
    assert undo(db, report.import_id)[-1] == 1.0
    assert counts(db) == before
    assert [one.state for one in imports.list_imports(db)] == ["undone"]
    assert load(db, EVERYTHING).added == report.added  # and it can be imported again


def test_what_was_here_before_the_import_is_not_its_own(db) -> None:
    first = load(db, [PAIR], name="first.jsonl")
    second = load(db, [PAIR, {**PAIR, "prompt": "q"}], name="second.jsonl")
    assert second.duplicates == 1
    undo(db, second.import_id)
    assert counts(db)["rankings"] == 1
    assert [(one.name, one.state) for one in imports.list_imports(db)] == [
        ("second.jsonl", "undone"),
        ("first.jsonl", "done"),
    ]
    undo(db, first.import_id)
    assert counts(db)["rankings"] == 0


def test_additions_to_a_known_chat_go_and_its_own_order_counts_again(db, new_db) -> None:
    turn = chat_of(db)
    me = ensure_local_person(db)
    best, worst = (reply.id for reply in turn.replies)
    mine = rankings.save_ranking(db, turn.id, me.id, {best: 1, worst: 2})
    elsewhere = new_db()
    load(elsewhere, dump(db))
    there = rankings.list_rankings(elsewhere)[0]
    rankings.revise_ranking(elsewhere, there.id, {reply: 3 - rank for reply, rank in
                                                  there.ranks.items()})  # fmt: skip
    labels.save_label(elsewhere, next(iter(there.ranks)), me.id, "toxic", True)
    before = exported(db)
    report = load(db, dump(elsewhere))
    assert (report.added.rankings, report.added.labels) == (1, 1)
    assert rankings.active_ranking(db, turn.id, me.id).order == "2>1"
    undo(db, report.import_id)
    assert exported(db) == before
    assert rankings.active_ranking(db, turn.id, me.id).id == mine.id


def test_versions_that_learned_from_the_import_are_marked(db) -> None:
    report = load(db, [PAIR, {**PAIR, "prompt": "q"}])
    run = runs.enqueue_run(db, ("reward",), "test", {}, rankings.newest_id(db))
    versions.register_version(db, "v1", None, run.id, "0" * 64, {}, "")
    undo(db, report.import_id)
    assert versions.get_version(db, "v1").erased_rankings == 2


def test_an_undo_that_broke_off_is_done_again(db, monkeypatch) -> None:
    report = load(db, [{**PAIR, "prompt": f"{number}"} for number in range(30)])
    monkeypatch.setattr(imports, "_TRANSACTION_SECONDS", 0.0)  # one row each
    steps = imports.undo_import(db, report.import_id)
    assert [next(steps) for _ in range(5)][-1] == pytest.approx(5 / 30)
    steps.close()
    assert counts(db)["conversations"] == 25
    assert imports.get_import(db, report.import_id).state == "done"
    undo(db, report.import_id)
    assert counts(db)["conversations"] == 0


def test_only_the_importer_or_an_admin_may_and_only_once(db) -> None:
    report = load(db, [PAIR])
    ann = create_person(db, "ann")
    with pytest.raises(NotFoundError):
        undo(db, report.import_id, person_id=ann.id)
    undo(db, report.import_id)
    with pytest.raises(ConflictError, match="already"):
        undo(db, report.import_id)


def test_a_file_that_is_none_leaves_no_import(db) -> None:
    me = ensure_local_person(db)
    report = import_records(db, io.BytesIO(b"\n\n{}\n"), me)
    assert report.failed == 1
    assert len(imports.list_imports(db)) == 1
    with pytest.raises(Exception, match="empty"):
        import_records(db, io.BytesIO(b""), me)
    assert len(imports.list_imports(db)) == 1
