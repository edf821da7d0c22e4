"""Which rankings of duels are blind, and what was foretold of rankings."""

from __future__ import annotations

import pytest

from storage import evidence
from storage.archive import archive
from storage.conversations import create_turn, delete_turn, finish_reply, get_turn
from storage.demonstrations import save_demonstration
from storage.labels import save_label
from storage.rankings import revise_ranking, save_ranking, withdraw_ranking
from storage.records import NewReply, Prediction
from storage.restore import Restorer
from storage.withdrawals import bring_back, erase_ranking, take_back
from storage.worst_turns import worst_turns


@pytest.fixture
def duel(db, chat):
    """Make a finished turn of two versions."""

    def make(versions=("v1", "v0"), slot="duel", text="Hello"):
        rows = [NewReply(place, name, 1, {}, slot) for place, name in enumerate(versions)]
        turn = create_turn(db, chat.id, text, None, rows)
        for reply in turn.replies:
            finish_reply(
                db, reply.id, text=f"words of {reply.version}", token_ids=[1], logprobs=[-1.0],
                finish_reason="stop", state="complete",
            )  # fmt: skip
        return get_turn(db, turn.id)

    return make


@pytest.fixture
def rank(db, me):
    def save(turn, *ranks):
        by_id = dict(zip([reply.id for reply in turn.replies], ranks, strict=True))
        return save_ranking(db, turn.id, me.id, by_id)

    return save


def by_version(db, person_id=None):
    return [
        {reply.version: reply.rank for reply in found.replies}
        for found in evidence.blind_rankings(db, person_id)
    ]


def test_a_ranking_of_a_duel_says_who_was_preferred(db, me, duel, rank, make_turn):
    turn = duel()
    rank(turn, 2, 1)
    rank(make_turn(), 1, 2, 3, 4)  # no duel
    duel()  # not ranked
    (found,) = evidence.blind_rankings(db)
    assert {reply.version: reply.rank for reply in found.replies} == {"v1": 2, "v0": 1}
    assert (found.turn_id, found.prompt, found.slot_type) == (turn.id, "Hello", "duel")
    assert {reply.text for reply in found.replies} == {"words of v0", "words of v1"}
    counts = evidence.duel_counts(db, me.id)
    assert (counts.turns, counts.ranked, counts.blind) == (2, 1, 1)


def test_only_the_first_ranking_is_blind(db, me, duel, rank):
    turn = duel()
    first = rank(turn, 1, 2)
    revised = revise_ranking(db, first.id, {reply.id: 1 for reply in turn.replies})
    assert by_version(db) == [{"v1": 1, "v0": 2}]
    withdraw_ranking(db, revised.id)  # the first one is active again
    assert by_version(db) == [{"v1": 1, "v0": 2}]
    withdraw_ranking(db, first.id)
    assert by_version(db) == []
    rank(turn, 2, 1)  # whoever ranks again has seen who wrote what
    assert by_version(db) == []
    counts = evidence.duel_counts(db, me.id)
    assert (counts.ranked, counts.blind) == (1, 0)


def test_a_rating_taken_back_or_erased_is_no_vote_nor_is_a_later_one(db, me, duel, rank):
    turn = duel()
    first = rank(turn, 1, 2)
    revised = revise_ranking(db, first.id, {reply.id: 1 for reply in turn.replies})
    take_back(db, revised.id)  # as a whole: the first one stays superseded
    assert by_version(db) == []
    bring_back(db, revised.id)
    assert by_version(db) == [{"v1": 1, "v0": 2}]
    erase_ranking(db, revised.id)
    assert by_version(db) == []
    rank(turn, 2, 1)
    assert by_version(db) == []
    assert evidence.duel_counts(db, me.id).ranked == 1


def test_whoever_looked_is_not_blind(db, me, duel, rank):
    turn = duel()
    evidence.reveal(db, turn.id, me.id)
    rank(turn, 1, 2)
    assert by_version(db) == []
    ranked_before = duel()
    rank(ranked_before, 1, 2)
    evidence.reveal(db, ranked_before.id, me.id)
    assert by_version(db) == [{"v1": 1, "v0": 2}]
    assert get_turn(db, ranked_before.id).revealed_after is None


def test_an_ordinary_turn_is_not_marked_as_looked_up(db, me, make_turn):
    turn = make_turn()
    evidence.reveal(db, turn.id, me.id)
    assert get_turn(db, turn.id).revealed_after is None


def test_each_person_has_their_own_rankings(db, me, duel, rank):
    turn = duel()
    rank(turn, 1, 2)
    with db.transaction() as connection:
        connection.execute("INSERT INTO people VALUES (77, 'other', 'rater', NULL, '2026')")
    save_ranking(db, turn.id, 77, {turn.replies[0].id: 2, turn.replies[1].id: 1})
    assert by_version(db, me.id) == [{"v1": 1, "v0": 2}]
    assert by_version(db, 77) == [{"v1": 2, "v0": 1}]
    assert len(by_version(db)) == 2


def test_an_imported_duel_counts_nowhere(db, me, duel, rank):
    turn = duel()
    rank(turn, 1, 2)
    (record,) = archive(db)
    delete_turn(db, turn.id)
    with db.transaction():
        Restorer(db, lambda _name: me.id).conversation(record)
    assert evidence.duel_counts(db).ranked == 1
    assert by_version(db) == []


def test_a_prediction_is_kept_once_and_goes_with_its_ranking(db, me, duel, rank):
    turn = duel()
    ranking = rank(turn, 1, 2)
    evidence.add_predictions(db, [Prediction(ranking.id, "v1", 4, 6), Prediction(999, "v1", 1, 1)])
    evidence.add_predictions(db, [Prediction(ranking.id, "v2", 6, 6)])
    assert evidence.list_predictions(db) == [Prediction(ranking.id, "v1", 4, 6)]
    assert evidence.predicted_rankings(db) == {ranking.id}
    assert evidence.list_predictions(db, me.id + 1) == []
    delete_turn(db, turn.id)
    assert evidence.list_predictions(db) == []


def test_the_worst_turns_come_first_and_those_of_the_live_version_not(db, me, duel, rank):
    fine, faulty, wrong, corrected, live = (
        duel(("v0", "v0"), "policy", text=text)
        for text in ("fine", "one fault", "all bad", "corrected", "by the live version")
    )
    for turn in (fine, faulty, corrected):
        rank(turn, 2, 1)
    save_ranking(db, wrong.id, me.id, {}, all_bad=True)
    save_label(db, faulty.replies[0].id, me.id, "toxic", value=True)
    save_label(db, fine.replies[0].id, me.id, "good", value=True)
    save_demonstration(db, me.id, "Better.", turn_id=corrected.id)
    own = duel(("v1", "v0"), "policy", text="by the live version")
    save_ranking(db, own.id, me.id, {}, all_bad=True)
    found = worst_turns(db, me.id, "v1")
    assert [turn.text for turn in found] == ["all bad", "corrected", "one fault"]
    assert [(turn.all_bad, turn.corrected, turn.faults) for turn in found] == [
        (True, False, 0),
        (False, True, 0),
        (False, False, 1),
    ]
    assert (found[2].version, found[2].best, found[2].replies) == ("v0", "words of v0", 2)
    assert found[0].replay_turn_id is None
    again = duel(("v1", "v0"), "replay", text="all bad")
    assert worst_turns(db, me.id, "v1")[0].replay_turn_id == again.id
    assert live.id
    assert worst_turns(db, me.id + 1, "v1") == []
