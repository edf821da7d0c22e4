"""The simulated rater against the real routes, rows and supervisor; only the model is fake."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import httpx
from fake_trainer import __file__ as fake_trainer
from rich.console import Console

from chatrlhf.loop.raters import find_rater
from chatrlhf.loop.simulate import Plan, simulate
from chatrlhf.loop.simulate_client import ApiClient
from chatrlhf.loop.supervisor import Pace, Supervisor
from storage import rankings, runs


class Forwarded(httpx.BaseTransport):
    """Passes requests to the test client, which may be of another HTTP library."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = {"content-type": request.headers.get("content-type", "application/json")}
        target = request.url.raw_path.decode()
        answer = self._client.request(
            request.method, target, content=request.read(), headers=headers
        )
        return httpx.Response(answer.status_code, content=answer.content)


def test_a_simulated_rater_ranks_waits_and_measures(app, client, settings) -> None:
    Path(settings.data_dir, "behaviours").write_text("succeed\nsucceed\n")
    supervisor = Supervisor(
        settings,
        app.db,
        build_command=lambda settings, run_id: [
            *(sys.executable, fake_trainer, str(settings.data_dir), str(run_id))
        ],
        pace=Pace(poll=0.05, grace=1.0, retry=0.05),
    )
    http = httpx.Client(transport=Forwarded(client), base_url="http://127.0.0.1:7860")
    output = io.StringIO()
    plan = Plan(
        rater=find_rater("noisy:shorter:0.1"), rankings=4, rounds="automatic", eval_prompts=3
    )
    supervisor.start()
    try:
        report = simulate(plan, ApiClient(http), Console(file=output, width=160))
    finally:
        supervisor.stop()
    assert report["failures"] == []
    assert report["rankings"] == 4
    assert len(rankings.list_rankings(app.db)) == 4
    assert [outcome["state"] for outcome in report["rounds"]] == ["succeeded"]
    assert runs.list_runs(app.db)[0].requested_by == "automatic"
    (row,) = report["versions"]
    # The fake engine says "word0 word1 word2 <row>" and ends by itself.
    assert (row["version"], row["mean_score"], row["mean_words"]) == ("v0", -4.0, 4.0)
    assert (row["prompts"], row["replies"], row["share_ended_by_itself"]) == (3, 6, 1.0)
    assert "Round 1 succeeded: It succeeded." in output.getvalue()
