"""The swap benchmark: its arithmetic by hand, and swaps on a tiny model, good and broken ones."""

from __future__ import annotations

import itertools
import json

import pytest
import swap
import swap_run
import torch
from swap_streams import Publication, Recorded, altered_replies, in_flight, pauses_of
from tiny_model import write_tiny_model

from chatrlhf.engine.requests import ChatMessage, Finished, ReplyRequest, Sampling
from chatrlhf.engine.turn import Turn

REQUEST = ReplyRequest((ChatMessage("user", "hi"),), 2, 0, Sampling())


def finished(row, tokens, reason="length"):
    return Finished(row, "", tokens, (), reason, "v0", 0)


def stream(times, started=0.0, replies=1):
    """One whose replies got text at these times, and ended at the last."""
    kept = Recorded(REQUEST, started=started, first=times[0], ended=times[-1], texts=times)
    kept.rows = {row: times for row in range(replies)}
    return kept


def test_a_pause_is_what_a_gap_has_beyond_the_usual_step():
    one = stream([1.0, 1.1, 1.2, 1.3, 1.55, 1.65])
    found = pauses_of([one], [Publication("v1", 1.35, 1.4, 1.7)])
    assert found.usual_step == pytest.approx(0.1)
    assert found.while_publishing == pytest.approx(0.15)
    assert found.while_publishing_or_prompting == pytest.approx(0.15)
    assert found.otherwise == pytest.approx(0.0)
    assert found.gaps_while_publishing == 1


def test_gaps_with_a_prompt_of_another_request_are_told_apart():
    one = stream([1.0, 1.1, 1.2, 1.7, 1.8, 2.2, 2.3])
    other = stream([1.65, 1.75], started=1.25)
    found = pauses_of([one, other], [Publication("v1", 1.6, 1.68, 2.0)])
    assert found.while_publishing_or_prompting == pytest.approx(0.4)
    assert found.while_publishing == pytest.approx(0.0)  # the other stream's gap
    assert found.otherwise == pytest.approx(0.3)


def test_without_a_gap_there_is_no_pause():
    one = stream([1.0, 1.1, 1.2])
    found = pauses_of([one], [Publication("v1", 5.0, 5.1, 5.2)])
    assert found.while_publishing is None
    assert in_flight([one], [Publication("v1", 5.0, 5.1, 5.2)]) == []
    assert in_flight([one], [Publication("v1", 0.9, 1.05, 5.2)]) == [one]


@pytest.mark.parametrize(
    ("change", "altered"),
    [
        ({}, 0),
        ({"finished": {0: finished(0, (1, 2)), 1: finished(1, (3, 5))}}, 1),
        ({"finished": {0: finished(0, (1, 2))}}, 1),
        ({"versions": ("v1", "v1")}, 2),
    ],
)
def test_a_reply_is_altered_when_a_token_or_its_version_differs(change, altered):
    def kept(**changes):
        whole = {0: finished(0, (1, 2)), 1: finished(1, (3, 4))}
        return Recorded(REQUEST, **{"versions": ("v0", "v0"), "finished": whole, **changes})

    assert altered_replies(kept(), kept(**change)) == altered


def test_a_request_is_dropped_when_a_reply_is_cut_or_missing():
    whole = {0: finished(0, (1,)), 1: finished(1, (3,), "stop")}
    assert not Recorded(REQUEST, finished=whole).is_dropped
    assert Recorded(REQUEST, finished=whole, failure="no memory").is_dropped
    assert Recorded(REQUEST, finished={0: whole[0]}).is_dropped
    assert Recorded(REQUEST, finished={**whole, 1: finished(1, (3,), "interrupted")}).is_dropped


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("swap") / "llama", "llama")


def job(model, **changes):
    """Five swaps with two places in memory beside the live version and the last."""
    return {
        "folder": str(model),
        "conversations": 2,
        "replies": 2,
        "tokens": 24,
        "swaps": 5,
        "pause_seconds": 0.1,
        "deviation": 0.3,
        "threads": torch.get_num_threads(),
        "quantization": "fp32",
        **changes,
    }


def test_swaps_under_load_drop_and_alter_nothing(model):
    found = swap_run.measure(job(model))
    assert found["swaps"] == 5
    assert (found["dropped"], found["altered"]) == (0, 0)
    assert found["requests_in_flight"] > 0
    assert found["altered_in_control"] == found["replies_of_control"] == 2
    assert all(0 < one < 30 for one in found["publish_to_first_token_seconds"])
    assert len(found["resident_versions"]) == 4


def test_a_swap_that_overwrites_a_version_in_use_is_seen(model, monkeypatch):
    publish = swap_run.publish

    def in_place(engine, name, folder, probe):
        found = publish(engine, name, folder, probe)
        slots = engine._slots._adapters
        for slot in slots.values():
            if slot != slots[name]:
                engine._bank.copy(slots[name], slot)
        return found

    monkeypatch.setattr(swap_run, "publish", in_place)
    assert swap_run.measure(job(model, swaps=3))["altered"] > 0


def test_a_request_that_fails_is_counted(model, monkeypatch):
    steps, accept = itertools.count(), Turn.accept

    def failing(turn, drawn):
        if len(turn.work.versions) == 2 and next(steps) == 20:
            raise RuntimeError("out of luck")
        return accept(turn, drawn)

    monkeypatch.setattr(Turn, "accept", failing)
    found = swap_run.measure(job(model, swaps=2))
    assert found["dropped"] == 1
    assert "out of luck" in found["failures"][0]


@pytest.mark.slow
def test_the_command_writes_its_numbers(model, tmp_path, capsys):
    file = tmp_path / "found.json"
    options = (
        f"--model {model} --swaps 3 --conversations 2 --replies 2 --tokens 24 --deviation 0.3 "
        f"--pause-seconds 0.1 --quantization fp32 --threads 1 --json {file}"
    )
    swap.main(options.split())
    found = json.loads(file.read_text())
    assert (found["swaps"], found["dropped"], found["altered"]) == (3, 0, 0)
    assert found["publish_to_first_token_ms"] > found["publish_ms"] > 0
    assert found["longest_pause_with_prompts_ms"] is not None
    # Two layers of seven products of 64, 32 or 128 values, rank 16, four bytes a value.
    sizes = 2 * (64 + 64) + 2 * (64 + 32) + 2 * (64 + 128) + (128 + 64)
    assert found["memory_per_version_mb"] == 2 * 16 * sizes * 4 / 2**20
    shown = capsys.readouterr().out
    assert "altered                 0 of" in shown


def test_memory_is_compared_once_all_slots_are_full():
    mib = 1 << 20
    assert swap.growth([10 * mib, 20 * mib, 30 * mib, 33 * mib], slots=3) == 3.0
    assert swap.growth([10 * mib, 20 * mib, 30 * mib], slots=3) is None


def test_bad_numbers_are_refused(capsys):
    with pytest.raises(SystemExit):
        swap.parse(["--swaps", "0"])
    assert "--swaps" in capsys.readouterr().err
