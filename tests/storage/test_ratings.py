"""Finding ratings by words and filters, page by page; taking them back and erasing them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage import (
    demonstrations,
    labels,
    rankings,
    ratings,
    runs,
    search_terms,
    versions,
    withdrawals,
)
from storage.conversations import create_conversation, delete_conversation
from storage.database import Database
from storage.people import create_person, list_audit
from storage.ratings import RatingFilter
from storage.records import Conversation, Message, Person, Ranking, Turn


@pytest.fixture
def rank(db: Database, me: Person) -> Callable[..., Ranking]:
    def save(turn: Turn, ranks=(1, 2, 3, 4), person: Person | None = None, **more) -> Ranking:
        by_id = {reply.id: rank for reply, rank in zip(turn.replies, ranks, strict=True)}
        return rankings.save_ranking(db, turn.id, (person or me).id, by_id, **more)

    return save


def found(db: Database, **wanted) -> list[int]:
    """Ids of the rankings of a filter; the count agrees."""
    chosen = RatingFilter(**wanted)
    ids = [row.ranking.id for row in ratings.find_rankings(db, chosen)]
    assert ratings.count_rankings(db, chosen) == len(ids)
    return ids


def test_words_of_prompt_replies_and_comment_are_found(db, make_turn, rank) -> None:
    tea = rank(make_turn(text="How do I brew green tea?"))
    sea = rank(make_turn(text="Why is the sea salty?"), comment="Naïve, but CORRECT")
    assert found(db, words="tea") == [tea.id]
    assert found(db, words="bre gree") == [tea.id]  # beginnings of words, each somewhere
    assert found(db, words="naive correct sea") == [sea.id]  # comment and prompt together
    assert found(db, words="reply") == [sea.id, tea.id]
    assert found(db, words='"green tea"') == [tea.id]
    assert found(db, words='"tea green"') == []
    assert found(db, words="coffee") == []


def test_signs_of_the_query_language_are_only_text(db, make_turn, rank) -> None:
    made = rank(make_turn(text="C++ AND (tea OR coffee) NEAR x* -y ^z"))
    for words in ("AND", "(tea", "OR", "NEAR(x", "x*", "-y", "^z", '"tea', "text:tea"):
        assert found(db, words=words) in ([made.id], []), words
    assert found(db, words="AND coffee x*") == [made.id]
    with pytest.raises(BadInputError, match="no word"):
        found(db, words="?! --")
    with pytest.raises(BadInputError, match="at most 8"):
        found(db, words="a b c d e f g h i")


@given(st.text(max_size=60))
def test_any_text_is_a_search_or_is_refused_in_words(text: str) -> None:
    try:
        terms = search_terms.search_terms(text)
    except BadInputError:
        return
    assert terms
    # Quotes only around a term: none can end one early.
    assert all(term.removesuffix(" *").strip('"').count('"') == 0 for term in terms)


@given(words=st.text(min_size=1, max_size=30))
def test_no_search_breaks_the_index(shared_db: Database, words: str) -> None:
    with contextlib.suppress(BadInputError):
        ratings.count_rankings(shared_db, RatingFilter(words=words))


def test_filters_and_their_choices(db, me, chat: Conversation, make_turn, rank) -> None:
    ann = create_person(db, "ann")
    first = make_turn(text="one")
    plain = rank(first)
    bad = rank(make_turn(text="two"), (1, 1, 1, 1), all_bad=True)
    other_chat = create_conversation(db, me.id)
    told = rank(make_turn(text="three", conversation_id=other_chat.id), comment="because")
    hers = rank(first, (2, 1, 3, 4), ann)
    labels.save_label(db, first.replies[2].id, me.id, "toxic", True)
    labels.save_label(db, first.replies[2].id, ann.id, "toxic", False)
    assert found(db) == [hers.id, told.id, bad.id, plain.id]
    assert found(db, person_id=ann.id) == [hers.id]
    assert found(db, all_bad=True) == [bad.id]
    assert found(db, all_bad=False, person_id=me.id) == [told.id, plain.id]
    assert found(db, commented=True) == [told.id]
    assert found(db, label="toxic") == [plain.id]  # what the rater said, not somebody else
    assert found(db, conversation_id=other_chat.id) == [told.id]
    assert found(db, turn_id=first.id) == [hers.id, plain.id]
    assert found(db, version="v0") == found(db)
    assert found(db, version="v1") == []
    assert found(db, since=bad.created_at)[-1] in (bad.id, plain.id)
    assert found(db, until="2000-01-01") == []
    assert found(db, since="2999-01-01") == []
    assert found(db, person_id=me.id, words="three", commented=True) == [told.id]
    assert ratings.filter_choices(db) == {
        "people": ["ann", "local"],
        "labels": ["toxic"],
        "versions": ["v0"],
    }
    assert ratings.filter_choices(db, ann.id)["people"] == ["ann"]
    assert ratings.filter_choices(db, ann.id)["labels"] == []
    (one,) = ratings.find_rankings(db, RatingFilter(person_id=me.id, turn_id=first.id))
    assert (one.person, one.prompt, one.best) == ("local", "one", "reply 0")
    assert (one.labels, one.versions) == (("toxic",), ("v0",))


def test_pages_neither_repeat_nor_hide_when_ratings_come_and_go(db, make_turn, rank) -> None:
    made = [rank(make_turn(text=f"number {number}")).id for number in range(7)]
    first = [row.ranking.id for row in ratings.find_rankings(db, RatingFilter(), limit=3)]
    assert first == made[:-4:-1]
    rank(make_turn(text="new"))
    rankings.withdraw_ranking(db, made[5])
    second = ratings.find_rankings(db, RatingFilter(), before_id=first[-1], limit=3)
    assert [row.ranking.id for row in second] == [made[3], made[2], made[1]]
    forward = ratings.find_rankings(db, RatingFilter(), after_id=made[0], limit=2)
    assert [row.ranking.id for row in forward] == [made[1], made[2]]
    assert ratings.find_rankings(db, RatingFilter(), before_id=made[0]) == []


def test_demonstrations_are_found_by_their_words_and_prompts(db, me, chat, make_turn) -> None:
    turn = make_turn(text="Tell me of whales")
    answer = demonstrations.save_demonstration(db, me.id, "They sing.", turn_id=turn.id)
    alone = demonstrations.save_demonstration(
        db, me.id, "A poem of whales.", messages=[Message("user", "Write a poem")]
    )

    def ids(**wanted):
        chosen = RatingFilter(**wanted)
        rows = [row.demonstration.id for row in ratings.find_demonstrations(db, chosen)]
        assert ratings.count_demonstrations(db, chosen) == len(rows)
        return rows

    assert ids() == [alone.id, answer.id]
    assert ids(words="whales") == [alone.id, answer.id]
    assert ids(words="sing") == [answer.id]
    assert ids(conversation_id=chat.id) == [answer.id]
    shown = ratings.find_demonstrations(db, RatingFilter(words="sing"))[0]
    assert (shown.person, shown.conversation_id) == ("local", chat.id)
    again = demonstrations.rewrite_demonstration(db, answer.id, "They click.", me.id)
    assert again.id > alone.id
    assert again.turn_id == turn.id
    assert ids(words="sing") == []
    assert ids(words="click") == [again.id]


def test_a_rating_is_taken_back_whole_and_brought_back(db, make_turn, rank) -> None:
    turn = make_turn()
    rank(turn)
    revision = rank(turn, (4, 3, 2, 1))
    withdrawals.take_back(db, revision.id)
    assert found(db) == []  # the order before does not come back
    assert withdrawals.bring_back(db, revision.id).state == "active"
    assert found(db) == [revision.id]
    with pytest.raises(ConflictError, match="nothing is to undo"):
        withdrawals.bring_back(db, revision.id)
    withdrawals.take_back(db, revision.id)
    newer = rank(turn)
    with pytest.raises(ConflictError, match="ranked again"):
        withdrawals.bring_back(db, revision.id)
    withdrawals.erase_ranking(db, revision.id)
    assert found(db) == [newer.id]
    assert [row.id for row in rankings.list_rankings(db, state=None)] == [newer.id]


def trained_on(db: Database, name: str, last_ranking_id: int) -> None:
    run = runs.enqueue_run(db, ("reward",), "test", {}, last_ranking_id)
    versions.register_version(db, name, None, run.id, "0" * 64, {}, "")
    runs.cancel_run(db, run.id, "test")


def test_erasing_marks_the_versions_that_learned_from_it(db, me, make_turn, rank) -> None:
    turn = make_turn()
    first = rank(turn)
    trained_on(db, "v0", first.id - 1)
    trained_on(db, "v1", first.id)
    revision = rank(turn, (4, 3, 2, 1))
    trained_on(db, "v2", revision.id)
    with pytest.raises(ConflictError, match="replaced by a revision"):
        withdrawals.erase_ranking(db, first.id)
    withdrawals.take_back(db, revision.id, me.id)
    assert withdrawals.erase_ranking(db, revision.id, me.id, by=me.id) == ["v1", "v2"]
    counts = {row.name: row.erased_rankings for row in versions.list_versions(db)}
    assert counts == {"v0": 0, "v1": 1, "v2": 1}
    assert rankings.list_rankings(db, state=None) == []
    assert list_audit(db)[-1].detail["versions"] == ["v1", "v2"]
    with pytest.raises(NotFoundError):
        withdrawals.bring_back(db, revision.id)


def test_somebody_elses_rating_is_not_there(db, make_turn, rank) -> None:
    ann = create_person(db, "ann")
    made = rank(make_turn())
    for act in (withdrawals.take_back, withdrawals.bring_back, withdrawals.erase_ranking):
        with pytest.raises(NotFoundError):
            act(db, made.id, ann.id)
    assert found(db) == [made.id]


def test_nothing_of_an_erased_text_stays_in_the_file(db, me, chat, make_turn, rank) -> None:
    secret = "xylographyqzx"
    turn = make_turn(text=f"My {secret} number")
    rank(turn, comment=f"a {secret}")
    demonstrations.save_demonstration(db, me.id, f"the {secret}", turn_id=turn.id)
    assert len(found(db, words=secret)) == 1
    # The index keeps words without what they share with their neighbours.
    rest = secret[1:].encode()

    def times() -> int:
        return sum(path.read_bytes().count(rest) for path in db.path.parent.glob("chatrlhf.db*"))

    db.forget_erased()
    assert times() == 6  # three texts, three indexes
    delete_conversation(db, chat.id)
    assert found(db, words=secret) == []
    assert times() == 0
