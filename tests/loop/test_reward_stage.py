"""The reward stage on a tiny model: labels, an external classifier, several people, bad input."""

from __future__ import annotations

import math
import re

import pytest
import torch
from tiny_classifier import write_classifier
from tiny_loop import TinyLoop

from chatrlhf.loop import gates
from chatrlhf.models.adapter_files import read_version
from chatrlhf.models.base_model import BaseModel
from chatrlhf.models.reward_terms import RewardTerms
from chatrlhf.training import reward
from storage import labels, people, runs, versions


@pytest.fixture
def make_loop(tmp_path, tiny_model):
    made = []

    def make(**reward):
        made.append(TinyLoop(tmp_path / "data", tiny_model, seed=1, reward=reward))
        return made[-1]

    yield make
    for loop in made:
        loop.db.close()


def taught(loop):
    loop.demonstrate()
    assert loop.round("sft").state == "succeeded"
    return loop


def label_all(loop, count, name, is_true):
    """Ask, and label every reply, without ranking any."""
    for replies in loop.ask(count).values():
        for reply, text in replies.items():
            labels.save_label(loop.db, reply, loop.person.id, name, is_true(text))


def sentences(loop, run, words):
    return [text for _, text in loop.events(run.id) if words in text]


def metric(loop, run, name):
    return [one.value for one in runs.list_metrics(loop.db, run.id) if one.name == name]


def reward_of(loop, version):
    stored = read_version(loop.settings.versions_dir / version).components["reward"]
    return RewardTerms.from_state(stored.head, loop.base.hidden_size)


def test_labels_alone_train_the_policy_away_from_what_they_name(make_loop, monkeypatch):
    # An empty reply has no b either, and PPO may find that; the gate against it is not the subject.
    monkeypatch.setattr(gates, "MOST_EMPTY", 1.0)
    loop = taught(make_loop(weights={"label:toxic": -1.0}))
    before = versions.get_alias(loop.db, "live")
    label_all(loop, 40, "toxic", lambda text: "b" in text)
    run = loop.round()
    assert run.result_version, loop.events(run.id)
    (said,) = sentences(loop, run, 'label "toxic"')
    assert "used with weight -1" in said
    assert set(reward_of(loop, run.result_version).terms) == {"label:toxic"}

    def share(version):
        answers = loop.answers([f"letters {n}" for n in range(300, 428)], 5, version)
        return torch.tensor([float("b" in text) for text, _, _ in answers])

    fewer = share(before) - share(run.result_version)
    assert fewer.mean() - 1.96 * fewer.std() / math.sqrt(len(fewer)) > 0


def test_terms_add_up_to_the_score_of_each_sample_and_their_means_are_measured(make_loop):
    loop = taught(
        make_loop(weights={"ranking": 1.0, "label:toxic": -0.5}, spread_penalty=0.25, ensemble=3)
    )
    loop.rank(32)
    label_all(loop, 40, "toxic", lambda text: "b" in text)
    run = loop.round()
    samples = runs.list_samples(loop.db, run.id)
    assert samples
    for sample in samples:
        assert set(sample.terms) == {"ranking", "label:toxic", "spread"}
        assert sum(sample.terms.values()) == pytest.approx(sample.score, abs=1e-4)
        assert sample.terms["spread"] <= 0.0
    scores = metric(loop, run, "ppo/score")
    ranking, toxic = (metric(loop, run, f"ppo/term_{n}") for n in ("ranking", "label:toxic"))
    spread = metric(loop, run, "ppo/spread")
    assert len(scores) == len(ranking) == loop.settings.ppo.iterations
    for total, *parts in zip(scores, ranking, toxic, spread, strict=True):
        assert parts[0] - 0.5 * parts[1] - 0.25 * parts[2] == pytest.approx(total, abs=1e-4)


def test_a_label_with_too_few_replies_is_off_and_the_timeline_says_so(make_loop):
    loop = taught(make_loop(weights={"ranking": 1.0, "label:toxic": -0.5}, minimum_labels=50))
    loop.rank(24)
    label_all(loop, 4, "toxic", lambda text: "b" in text)
    label_all(loop, 1, "funny", lambda text: True)
    run = loop.round("reward")
    (said,) = sentences(loop, run, '"toxic" is not used yet')
    assert "it needs 50 of both" in said
    assert sentences(loop, run, "no weight for label:funny")
    assert not sentences(loop, run, '"bad"')  # nobody said so


def test_a_label_that_is_chance_is_off(make_loop):
    loop = taught(make_loop(weights={"ranking": 1.0, "label:toxic": -0.5}))
    loop.rank(24)
    label_all(loop, 20, "toxic", lambda text: loop.random.random() < 0.5)
    (said,) = sentences(loop, loop.round("reward"), 'label "toxic"')
    assert "So it is not used. Label replies to more prompts." in said


def test_all_bad_rankings_train_the_label_bad(make_loop):
    loop = taught(make_loop(weights={"ranking": 1.0, "label:bad": -0.5}))
    for turn_id, replies in loop.ask(60).items():
        scores = {reply: float(text.count("a")) for reply, text in replies.items()}
        loop.say(turn_id, scores, all_bad=max(scores.values()) == 0)
    run = loop.round("reward")
    (said,) = sentences(loop, run, 'label "bad"')
    assert "used with weight -0.5" in said, said


def test_an_external_classifier_is_a_term(make_loop, tmp_path):
    write_classifier(tmp_path / "classifier")
    loop = taught(
        make_loop(
            weights={"classifier": 1.0},
            classifier=str(tmp_path / "classifier"),
            classifier_label="toxic",
        )
    )
    run = loop.round("reward", "ppo")
    assert run.state == "succeeded", run.message
    assert sentences(loop, run, 'scores replies by its label "toxic"')
    for sample in runs.list_samples(loop.db, run.id):
        assert sample.terms == {"classifier": pytest.approx(sample.score)}


@pytest.mark.parametrize(
    ("label", "name", "words"),
    [
        ("toxic", "missing", "neither a folder nor a hub id"),
        ("rude", "classifier", "no label 'rude'"),
    ],
)
def test_a_wrong_classifier_fails_the_round_with_the_reason(
    make_loop, tmp_path, label, name, words
):
    write_classifier(tmp_path / "classifier")
    loop = make_loop(
        weights={"classifier": 1.0}, classifier=str(tmp_path / name), classifier_label=label
    )
    run = loop.round("reward")
    assert run.state == "failed"
    assert words in run.message


def test_without_any_term_that_can_be_used_the_round_is_skipped(make_loop):
    loop = make_loop(weights={"label:toxic": -1.0})
    loop.rank(10)
    run = loop.round("reward", "ppo")
    assert run.state == "skipped"
    assert "No term of the reward can be used yet" in run.message


def test_rankings_of_a_single_prompt_skip_the_round(make_loop):
    loop = make_loop()
    loop.rank(10, prompts=1, score=len)
    run = loop.round("reward", "ppo")
    assert run.state == "skipped"
    assert "of 1 prompts" in run.message
    assert "at least two prompts" in run.message


def test_people_who_contradict_each_other_promote_nothing(make_loop):
    loop = taught(make_loop())
    other = people.create_person(loop.db, "other")
    for turn_id, replies in loop.ask(24).items():
        scores = {reply: float(text.count("a")) for reply, text in replies.items()}
        loop.say(turn_id, scores)
        loop.say(turn_id, {reply: -value for reply, value in scores.items()}, person=other)
    run = loop.round()
    assert run.result_version is None
    assert "not surely better than chance" in run.message
    (said,) = sentences(loop, run, "Where several people ranked the same replies")
    assert "agree on 0 of" in said


def test_a_reward_that_follows_length_is_reported_and_not_refused(make_loop):
    loop = taught(make_loop())
    loop.rank(40, score=len)
    run = loop.round("reward")
    (said,) = sentences(loop, run, "mostly follow length")
    assert "longer" in said
    assert "gate_passed" in {kind for kind, _ in loop.events(run.id)}


def test_a_new_reward_model_is_compared_with_the_live_one_on_newer_prompts(make_loop):
    loop = taught(make_loop())
    loop.rank(64)
    first = loop.round()
    assert first.result_version, loop.events(first.id)
    assert not sentences(loop, first, "newer than the live version's")
    # Many of a trained version's replies to a prompt are the same text, and those are not ranked.
    loop.rank(96, prompts=10_000)
    second = loop.round("reward")
    (said,) = sentences(loop, second, "newer than the live version's")
    assert "not surely worse" in said


def test_a_trained_adapter_is_kept_only_if_it_helps(make_loop):
    loop = taught(make_loop(adapter_rankings=12, epochs=1, learning_rate=1e-6))
    loop.rank(24)
    run = loop.round("reward")
    (said,) = sentences(loop, run, "held-out loss")
    before, after = (float(loss) for loss in re.findall(r"\d+\.\d+", said))
    verdict = "A reward adapter was trained" if after < before else "did not help"
    assert verdict in said


def test_a_reward_that_runs_out_of_memory_reads_fewer_replies_at_once(make_loop, monkeypatch):
    loop = taught(make_loop(weights={"ranking": 1.0, "label:toxic": -0.5}))
    loop.rank(16)
    label_all(loop, 10, "toxic", lambda text: "b" in text)
    monkeypatch.setattr(reward, "cores", lambda _: 1)
    body, rows = BaseModel.body, []

    def failing(self, input_ids, *arguments, **options):
        if options.get("past_key_values") is None:  # not a step of decoding
            rows.append(input_ids.shape[0])
            if input_ids.shape[0] > 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return body(self, input_ids, *arguments, **options)

    monkeypatch.setattr(BaseModel, "body", failing)
    run = loop.round("reward")
    assert run.state == "succeeded", run.message
    assert rows[:3] == [1, 4, 2]  # the check of the base, then four replies, then two
    assert max(rows[2:]) == 2
