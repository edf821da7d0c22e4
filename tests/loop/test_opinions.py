"""What several people say of the same replies."""

from __future__ import annotations

import pytest

from chatrlhf.loop.opinions import agreement, label_shares, orders
from storage.records import Label, LabelledReply, Message, RankedTurn

HELLO = (Message("user", "Hello"),)


def ranked(ranks, person=1, turn=1, all_bad=False, first_reply=10):
    ids = tuple(range(first_reply, first_reply + len(ranks)))
    texts = tuple(f"reply {reply}" for reply in ids)
    return RankedTurn(
        ranking_id=person,
        turn_id=turn,
        person_id=person,
        messages=HELLO,
        reply_ids=ids,
        replies=texts,
        finished=(True,) * len(ranks),
        ranks=tuple(ranks),
        strength=None,
        all_bad=all_bad,
    )


def labelled(reply, *said):
    """``said``: (person, label, value)."""
    labels = tuple(Label(reply, person, label, value) for person, label, value in said)
    return LabelledReply(reply, HELLO, "text", True, labels)


def test_shares_are_of_the_people_who_say_anything():
    found = label_shares(
        [],
        [
            labelled(1, (1, "toxic", True), (2, "toxic", True), (3, "toxic", False)),
            labelled(2, (1, "toxic", False), (1, "good", True)),
        ],
    )
    assert found == {"good": {2: 1.0}, "toxic": {1: pytest.approx(2 / 3), 2: 0.0}}


def test_all_bad_says_so_of_every_reply_and_an_order_spares_the_best():
    found = label_shares(
        [
            ranked([1, 1], turn=1, all_bad=True, first_reply=10),
            ranked([2, 1, 1, 3], turn=2, first_reply=20),
            ranked([1, 1], turn=3, first_reply=30),  # all tied: neither
        ],
        [],
    )
    assert found == {"bad": {10: 1.0, 11: 1.0, 21: 0.0, 22: 0.0}}


def test_the_label_itself_goes_before_what_the_ranking_implies():
    found = label_shares(
        [ranked([1, 1], all_bad=True), ranked([1, 2], person=2)],
        [labelled(10, (1, "bad", False)), labelled(11, (2, "bad", True))],
    )
    # Reply 10: person 1 says no by label, person 2 ranked it best. Reply 11: both say bad.
    assert found == {"bad": {10: 0.0, 11: 1.0}}


def test_people_who_differ_on_all_bad_share_the_vote():
    found = label_shares([ranked([1, 1], all_bad=True), ranked([1, 2], person=2)], [])
    assert found == {"bad": {10: 0.5, 11: 1.0}}


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (ranked([1, 2]), True),
        (ranked([1, 1, 1]), False),
        (ranked([1, 2], all_bad=True), False),
        (ranked([2, 1, 2, 2]), True),  # best of K
    ],
)
def test_what_orders_replies(turn, expected):
    assert orders(turn) is expected


def test_agreement_counts_pairs_that_both_ordered():
    turns = [
        ranked([1, 2, 3], person=1),
        ranked([1, 3, 2], person=2),  # with 1: two alike, one not
        ranked([1, 2, 2], person=3),  # with 1: two alike, one tied; with 2: two alike, one tied
        ranked([3, 2, 1], person=4, all_bad=True),  # says nothing
        ranked([1, 2], person=1, turn=2, first_reply=20),  # alone on its turn
    ]
    assert agreement(turns) == (2 + 2 + 2, 3 + 2 + 2)
    assert agreement([]) == (0, 0)
