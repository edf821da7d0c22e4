"""Rows become examples: rankings with weights and strengths, labels with shares."""

from __future__ import annotations

import pytest
from tiny_model import write_tiny_model

from chatrlhf.loop.datasets import load_round_data
from chatrlhf.models.base_model import load_base_model
from chatrlhf.settings import load_settings
from storage import conversations, labels, people, rankings
from storage.conversations import NewReply


@pytest.fixture(scope="module")
def chat_format(tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp("m") / "tiny", hidden=32)
    return load_base_model(folder, quantization="fp32").chat_format


class Desk:
    """Turns, people, and what they say."""

    def __init__(self, db):
        self.db = db
        self.me = people.ensure_local_person(db)

    def turn(self, text, replies=("aa", "b", ""), finished=True):
        chat = conversations.create_conversation(self.db, self.me.id)
        rows = [NewReply(place, "v0", 1, {}) for place in range(len(replies))]
        made = conversations.create_turn(self.db, chat.id, text, None, rows)
        for reply, answer in zip(made.replies, replies, strict=True):
            conversations.finish_reply(
                self.db,
                reply.id,
                text=answer,
                token_ids=[5],
                logprobs=[0.0],
                finish_reason="stop" if finished else "length",
                state="complete",
            )
        return conversations.get_turn(self.db, made.id)

    def rank(self, turn, ranks, person=None, **extras):
        by_id = {reply.id: rank for reply, rank in zip(turn.replies, ranks, strict=True)}
        who = (person or self.me).id
        return rankings.save_ranking(self.db, turn.id, who, by_id, **extras)


@pytest.fixture
def desk(db):
    return Desk(db)


@pytest.fixture
def load(db, chat_format, tmp_path):
    settings = load_settings(
        tmp_path, {"reward": {"max_tokens": 40}, "ppo": {"max_new_tokens": 8}}, environment={}
    )
    return lambda: load_round_data(db, chat_format, settings, rankings.newest_id(db))


def test_a_ranking_keeps_its_strength_its_id_and_its_prompt(desk, load):
    saved = desk.rank(desk.turn("One"), (2, 1, 3), strength=4)
    desk.rank(desk.turn("One"), (1, 2, 3))
    desk.rank(desk.turn("Two"), (1, 2, 3))
    data = load()
    first, same, other = data.rankings
    assert (first.ranks, first.strength, first.weight) == ((2, 1, 3), 4, 1.0)
    assert first.ranking_id == saved.id
    assert same.strength is None
    assert first.prompt_key == same.prompt_key != other.prompt_key
    assert data.ranked_prompts == 2


def test_people_who_rank_the_same_replies_share_one_vote(db, desk, load):
    others = [people.create_person(db, f"person {n}") for n in range(4)]
    crowded, lonely = desk.turn("One"), desk.turn("One")
    for person in (desk.me, *others):
        desk.rank(crowded, (1, 2, 3) if person is desk.me else (2, 1, 3), person)
    desk.rank(lonely, (1, 2, 3))
    data = load()
    assert [one.weight for one in data.rankings] == [0.2] * 5 + [1.0]
    # Four pairs of people agree on two of three, the other six on all.
    assert data.agreement == (4 * 2 + 6 * 3, 10 * 3)


def test_all_bad_and_all_tied_order_nothing_but_all_bad_labels(desk, load):
    bad, tied, best = desk.turn("One"), desk.turn("Two"), desk.turn("Three")
    desk.rank(bad, (1, 2, 3), all_bad=True)
    desk.rank(tied, (1, 1, 1))
    desk.rank(best, (2, 1, 2))
    data = load()
    assert [one.ranks for one in data.rankings] == [(2, 1, 2)]
    assert list(data.labels) == ["bad"]
    targets = [(one.target, one.prompt_key) for one in data.labels["bad"]]
    (ranking,) = data.rankings
    assert [target for target, _ in targets] == [1.0, 1.0, 1.0, 0.0]
    assert targets[3][1] == ranking.prompt_key
    assert data.labels["bad"][3].sequence == ranking.sequences[1]


def test_labels_of_replies_that_nobody_ranked_are_examples_too(db, desk, load):
    turn = desk.turn("One")
    labels.save_label(db, turn.replies[0].id, desk.me.id, "toxic", True)
    before = load()
    assert before.rankings == ()
    (example,) = before.labels["toxic"]
    assert example.target == 1.0
    desk.rank(turn, (1, 2, 3))
    (again,) = load().labels["toxic"]
    assert again == example  # the same tokens as when it is ranked
    assert load().rankings[0].sequences[0] == example.sequence


def test_what_people_say_is_part_of_the_datas_identity(db, desk, load):
    turn = desk.turn("One")
    desk.rank(turn, (1, 2, 3))
    hashes = [load().dataset_hash]
    labels.save_label(db, turn.replies[0].id, desk.me.id, "toxic", True)
    hashes.append(load().dataset_hash)
    labels.save_label(db, turn.replies[0].id, desk.me.id, "toxic", False)
    hashes.append(load().dataset_hash)
    desk.rank(desk.turn("Two"), (1, 1, 1), all_bad=True)
    hashes.append(load().dataset_hash)
    assert len(set(hashes)) == 4
    assert load().dataset_hash == hashes[-1]


def test_an_empty_reply_and_one_longer_than_the_context_become_tokens(desk, load, chat_format):
    turn = desk.turn("One " * 50, ("", "a " * 200, "b"))
    desk.rank(turn, (1, 2, 3))
    empty, long, short = load().rankings[0].sequences
    end = chat_format.end_token_id
    spoken = [token for token, own in zip(empty.token_ids, empty.is_response, strict=True) if own]
    assert spoken[-1] == end
    assert max(len(empty), len(long), len(short)) <= 41
    assert sum(long.is_response) == 40  # one token of the prompt is left
    cut = desk.turn("One", ("", "a", "b"), finished=False)
    desk.rank(cut, (1, 2, 3))
    assert load().rankings[1].reply_lengths[0] >= 1
