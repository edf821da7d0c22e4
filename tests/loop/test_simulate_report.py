from __future__ import annotations

import io

import pytest
from rich.console import Console

from chatrlhf.loop.simulate_report import PromptResult, comparison_table, summarise


def result(prompt_id: int, *scores: float, words: int = 4) -> PromptResult:
    count = len(scores)
    return PromptResult(prompt_id, scores, (words,) * count, (True,) * count)


def test_means_and_paired_differences_by_hand() -> None:
    rows = summarise(
        {
            # Prompt means: 1, 3, 5; and 2, 5, 8: differences 1, 2, 3.
            "v0": [result(1, 0, 2), result(2, 3, 3), result(3, 5, 5)],
            "v1": [result(1, 2, 2, words=3), result(2, 4, 6), result(3, 8, 8)],
        },
        seed=0,
    )
    assert rows[0]["mean_score"] == 3.0
    assert rows[1]["mean_score"] == 5.0
    assert rows[1]["score_difference"]["estimate"] == 2.0
    assert 1.0 <= rows[1]["score_difference"]["low"] < 2.0 < rows[1]["score_difference"]["high"]
    assert rows[1]["words_difference"]["estimate"] == pytest.approx(-1 / 3)
    assert rows[1]["replies"] == 6


def test_a_single_prompt_has_a_difference_but_no_interval() -> None:
    rows = summarise({"v0": [result(1, 1.0)], "v1": [result(1, 3.0)]}, seed=0)
    assert rows[1]["score_difference"] == {"estimate": 2.0, "low": None, "high": None}
    assert "+2.000" in rendered(rows)


def test_a_version_without_any_answer_is_left_out() -> None:
    assert [row["version"] for row in summarise({"v0": [], "v1": [result(1, 1.0)]}, 0)] == ["v1"]


def test_the_table_shows_differences_with_their_intervals() -> None:
    rows = summarise(
        {"v0": [result(n, 1.0) for n in range(3)], "v1": [result(n, 1.5) for n in range(3)]}, 0
    )
    text = rendered(rows)
    assert "+0.500 (+0.500 to +0.500)" in text
    assert "100%" in text


def rendered(rows: list[dict[str, object]]) -> str:
    output = io.StringIO()
    Console(file=output, width=160).print(comparison_table(rows, "shorter"))
    return output.getvalue()
