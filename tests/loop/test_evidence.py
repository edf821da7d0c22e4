"""Votes of blind turns, what they sum to, and the sentence about them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatrlhf.loop.evidence import foretold, summarise, vote_of, votes_still_needed
from chatrlhf.loop.evidence_words import verdict as sentences
from storage.records import BlindRanking, BlindReply, Prediction


def verdict(*args, **kwargs):
    return " ".join(map(str, sentences(*args, **kwargs)))


def ranked(turn, versions_and_ranks, slot="duel", prompt=None, words=()):
    texts = [" ".join(["word"] * count) for count in words] or ["a b"] * len(versions_and_ranks)
    replies = tuple(
        BlindReply(version, rank, text)
        for (version, rank), text in zip(versions_and_ranks, texts, strict=True)
    )
    return BlindRanking(turn, turn, 1, slot, prompt or f"prompt {turn}", replies)


def won(turn, newer="v7", older="v6", **more):
    return ranked(turn, [(newer, 1), (older, 3), (newer, 2), (older, 4)], **more)


def lost(turn, newer="v7", older="v6", **more):
    return won(turn, older, newer, **more)


def tied(turn, newer="v7", older="v6", **more):
    return ranked(turn, [(newer, 1), (older, 2), (newer, 4), (older, 3)], **more)


@pytest.mark.parametrize(
    ("ranks", "outcome"),
    [
        ([("v2", 1), ("v1", 2)], 1.0),
        ([("v2", 2), ("v1", 1)], 0.0),
        ([("v2", 1), ("v1", 1)], 0.5),
        ([("v2", 1), ("v1", 2), ("v2", 4), ("v1", 3)], 0.5),  # 2 of 4 pairs
        ([("v2", 1), ("v1", 2), ("v2", 3), ("v1", 4)], 1.0),  # 3 of 4
        ([("v2", 2), ("v1", 1), ("v1", 3)], 0.5),  # one of two
        ([("v10", 1), ("v9", 2)], 1.0),  # v10 is newer than v9
    ],
)
def test_one_turn_is_one_vote_by_the_majority_of_its_pairs(ranks, outcome):
    assert vote_of(ranked(1, ranks)).outcome == outcome


def test_a_turn_of_one_version_is_no_vote():
    assert vote_of(ranked(1, [("v2", 1), ("v2", 2)])) is None
    assert vote_of(ranked(1, [("v2", 1), ("v1", 2), ("v0", 3)])) is None


def test_words_are_means_of_each_side():
    vote = vote_of(ranked(1, [("v2", 1), ("v1", 2), ("v2", 3)], words=(4, 7, 8)))
    assert vote.words_more == pytest.approx(6 - 7)


def test_the_sentence_of_the_design():
    rankings = [won(turn) for turn in range(23)] + [lost(turn) for turn in range(23, 31)]
    summary = summarise(rankings, "v7")
    assert verdict(summary, older_versions=1, share=0.2) == (
        "You preferred v7 in 23 of 31 blind turns (74%, 95% interval 57-86). So v7 is better than "
        "what was before it."
    )
    assert summary.worse_than is None


def test_a_worse_version_is_said_to_be_worse_than_the_one_it_lost_to():
    rankings = [lost(turn) for turn in range(12)] + [won(turn, older="v5") for turn in (20, 21)]
    summary = summarise(rankings, "v7")
    assert summary.worse_than == "v6"
    assert "worse than what was before it. Roll back" in verdict(
        summary, older_versions=2, share=0.2, is_team=True
    )


def test_what_is_not_sure_says_how_many_votes_would_settle_it():
    rankings = [won(turn) for turn in range(6)] + [lost(turn) for turn in range(6, 10)]
    summary = summarise([*rankings, tied(11)], "v7")
    words = verdict(summary, older_versions=1, share=0.2)
    assert "in 6 of 11 blind turns, 1 tied (59%" in words
    needed = votes_still_needed(summary.against_older)
    assert f"{needed} more blind turns like these would settle it" in words
    # 6 of 11 and one tie again and again, until Wilson's lower end is above one half and so many
    # wins or more are less likely than 1 in 40 among equals.
    sure = []
    for votes in range(12, 12 + needed):
        wins, losses = round(6 * votes / 11), round(4 * votes / 11)
        as_many = sum(math.comb(wins + losses, k) for k in range(wins, wins + losses + 1))
        share = (wins + (votes - wins - losses) / 2) / votes
        sure.append(wilson_low(share, votes) > 0.5 and as_many / 2 ** (wins + losses) < 0.025)
    assert sure == [False] * (needed - 1) + [True]


@pytest.mark.parametrize("side", [won, lost])
def test_a_handful_of_votes_is_not_sure_however_they_go(side):
    for votes in (4, 5):
        few = summarise([side(turn) for turn in range(votes)], "v7")
        words = verdict(few, older_versions=1, share=0.2)
        assert f"of {votes} blind turns" in words
        assert "more blind turn" in words
        assert votes_still_needed(few.against_older) == 6 - votes
        assert few.worse_than is None
    settled = verdict(summarise([side(t) for t in range(6)], "v7"), older_versions=1, share=0.2)
    assert ("better" if side is won else "worse") in settled


def test_what_is_even_is_called_so_only_after_many_votes():
    one = summarise([tied(1)], "v7")
    words = verdict(one, older_versions=1, share=0.2)
    assert "0 of 1 blind turns, 1 tied (50%, 95% interval 5-95)" in words
    assert "neither way yet" in words
    assert "small" not in words
    many = summarise(
        [won(turn) for turn in range(40)] + [lost(40 + turn) for turn in range(40)], "v7"
    )
    assert "if there is a difference, it is small" in verdict(many, older_versions=1, share=0.2)


def wilson_low(share, n, z=1.959964):
    """The root of (p - share)^2 = z^2 p (1 - p) / n that is below the share."""
    a, b, c = 1 + z * z / n, -(2 * share + z * z / n), share * share
    return (-b - (b * b - 4 * a * c) ** 0.5) / (2 * a)


def test_nothing_known_says_what_will_happen():
    summary = summarise([], "v0")
    assert "is the only version" in verdict(summary, older_versions=0, share=0.2)
    assert "about 20% of the turns" in verdict(summary, older_versions=2, share=0.2)
    assert "duels are off" in verdict(summary, older_versions=2, share=0.0)


def test_replays_are_counted_apart():
    rankings = [won(1), won(2, slot="replay"), lost(3, slot="replay")]
    summary = summarise(rankings, "v7")
    assert [(pair.wins, pair.losses) for pair in summary.pairs] == [(1, 0)]
    assert [(pair.wins, pair.losses) for pair in summary.replays] == [(1, 1)]
    assert summary.against_older.votes == 1


def test_strengths_are_over_the_oldest_version_tied_to_the_live_one():
    rankings = [won(turn, "v2", "v1") for turn in range(8)]
    rankings += [lost(turn, "v2", "v1") for turn in range(8, 12)]
    rankings += [won(turn, "v9", "v8") for turn in range(20, 24)]
    summary = summarise(rankings, "v2")
    assert summary.anchor == "v1"
    assert set(summary.strengths) == {"v1", "v2"}
    assert summary.strengths["v1"] == (0.0, 0.0, 0.0)
    assert summary.strengths["v2"].low < summary.strengths["v2"].estimate


@given(st.lists(st.sampled_from([won, lost, tied]), max_size=30))
def test_every_blind_turn_is_counted_once(kinds):
    summary = summarise([kind(turn) for turn, kind in enumerate(kinds)], "v7")
    if not kinds:
        assert summary.against_older is None
        return
    result = summary.against_older
    assert (result.wins, result.losses, result.ties) == tuple(
        kinds.count(kind) for kind in (won, lost, tied)
    )
    assert result.win_rate.low <= result.win_rate.estimate <= result.win_rate.high


def test_what_was_foretold_is_summed_by_ranking_and_by_version():
    found = foretold(
        [Prediction(3, "v1", 6, 6), Prediction(4, "v1", 3, 6), Prediction(9, "v2", 0, 1)]
    )
    assert (found["rankings"], found["right"], found["pairs"]) == (3, 9, 13)
    # Rankings weigh alike: (1 + 0.5 + 0) / 3.
    assert found["accuracy"]["estimate"] == pytest.approx(0.5)
    assert [one["so_far"]["estimate"] for one in found["points"]] == pytest.approx([1, 0.75, 0.5])
    assert [(one["version"], one["rankings"]) for one in found["by_version"]] == [
        ("v1", 2),
        ("v2", 1),
    ]
    assert foretold([])["accuracy"] is None
