from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from rich.console import Console

from chatrlhf.errors import BadInputError
from chatrlhf.loop.raters import find_rater
from chatrlhf.loop.simulate import Plan, simulate
from chatrlhf.loop.simulate_client import ApiClient, RequestFailedError

Answer = tuple[int, Any]


class FakeServer:
    """The API as a simulated rater meets it; a round takes three looks and makes one version.

    Every version up to v0 answers with ten words, each later one with three words fewer.
    """

    def __init__(self, *, refit_every: int = 4, prompts: int = 20) -> None:
        self.refit_every = refit_every
        self.prompts = [
            {
                "id": number,
                "text": f"prompt {number}",
                "system_prompt": "",
                "tags": [],
                "split": "held_out" if number % 4 == 0 else "train",
            }
            for number in range(1, prompts + 1)
        ]
        self.rankings: list[dict[str, Any]] = []
        self.rounds: list[dict[str, Any]] = []
        self.looks_left = 0
        self.live = 0
        self.asked: list[dict[str, Any]] = []
        self.completions: list[dict[str, Any]] = []
        self.busy_answers = 0
        self.loading_answers = 0
        self.refuse: Callable[[str, str, Any], Answer | None] = lambda *_: None
        self.paused = False

    def client(self, **options: Any) -> ApiClient:
        http = httpx.Client(
            transport=httpx.MockTransport(self.handle), base_url="http://server.test"
        )
        return ApiClient(http, sleep=lambda _: None, **options)

    def handle(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        refused = self.refuse(request.method, request.url.path, body)
        status, content = refused or self.answer(request.method, request.url.path, body)
        return httpx.Response(status, json=content)

    def answer(self, method: str, path: str, body: Any) -> Answer:
        parts = path.strip("/").split("/")
        match method, *parts:
            case "GET", "api", "health":
                return self.health()
            case "GET", "api", "prompts":
                return 200, self.prompts
            case "GET", "api", "rounds":
                return 200, self.rounds[::-1]
            case "POST", "api", "rounds":
                self.start_round("local")
                return 200, self.rounds[-1]
            case "GET", "api", "rounds", _, "events":
                return 200, [{"id": 1, "kind": "gate_passed", "text": "Held-out 71% [ok]."}]
            case "POST", "api", "conversations":
                return 200, {"id": 5}
            case "POST", "api", "conversations", "5", "turns":
                return self.turn(body)
            case "POST", "api", "turns", turn, "ranking":
                return self.rank(int(turn), body)
            case "POST", "v1", "chat", "completions":
                return self.complete(body)
        return 404, {"error": {"code": "not_found", "message": f"no {method} {path}"}}

    def health(self) -> Answer:
        if self.loading_answers:
            self.loading_answers -= 1
            loading = {"stage": "converting", "fraction": 0.5}
            return 200, {"status": "loading", "loading": loading, "live_version": None}
        self.advance_round()
        running = bool(self.rounds) and self.rounds[-1]["state"] == "running"
        state = "paused" if self.paused else "running" if running else "idle"
        trainer = {"state": state, "next_refit_in": self.next_refit_in()}
        trainer |= {"stage": "ppo", "step": 3 - self.looks_left, "steps": 3, "eta_seconds": 62.0}
        return 200, {
            "status": "ok",
            "model": "tiny",
            "live_version": f"v{self.live}",
            "loading": None,
            "trainer": trainer,
        }

    def next_refit_in(self) -> int:
        seen = self.rounds[-1]["last_ranking_id"] if self.rounds else 0
        return max(0, self.refit_every - (len(self.rankings) - seen))

    def start_round(self, by: str) -> None:
        self.looks_left = 3
        self.rounds.append(
            {
                "id": len(self.rounds) + 1,
                "state": "running",
                "stages": ["reward", "ppo"],
                "requested_by": by,
                "message": "",
                "result_version": None,
                "last_ranking_id": len(self.rankings),
                "started_at": "then",
                "ended_at": None,
            }
        )

    def advance_round(self) -> None:
        if self.looks_left:
            self.looks_left -= 1
            if not self.looks_left:
                self.live += 1
                version = f"v{self.live}"
                ended = {"state": "succeeded", "result_version": version, "ended_at": "now"}
                self.rounds[-1] |= {**ended, "message": f"{version} is live."}

    def turn(self, body: dict[str, Any]) -> Answer:
        if self.busy_answers:
            self.busy_answers -= 1
            return 503, {"error": {"code": "overloaded", "message": "64 turns wait"}}
        self.asked.append(body)
        first = 10 * len(self.asked)
        replies = [
            {"id": first + place, "position": place, "text": words(count), "state": "complete"}
            for place, count in enumerate((3, 1, 3, 2))
        ]
        return 200, {"turn_id": len(self.asked), "replies": replies}

    def rank(self, turn: int, body: dict[str, Any]) -> Answer:
        self.rankings.append({"turn": turn, **body})
        if self.next_refit_in() == 0 and not self.looks_left:
            self.start_round("automatic")
        return 200, {"ranking_id": len(self.rankings), "order": "2>4>1=3", "comparisons": 5}

    def complete(self, body: dict[str, Any]) -> Answer:
        self.completions.append(body)
        count = 10 - 3 * int(body["model"][1:])
        choice = {"message": {"role": "assistant", "content": words(count)}}
        reasons = ["stop", "length"]
        return 200, {
            "choices": [{**choice, "finish_reason": reasons[i % 2]} for i in range(body["n"])]
        }


def words(count: int) -> str:
    return " ".join(["word"] * count)


def carry_out(server: FakeServer, **plan: Any) -> tuple[dict[str, Any], str]:
    output = io.StringIO()
    console = Console(file=output, width=160)
    chosen = Plan(**{"rater": find_rater("shorter"), "rankings": 4, **plan})
    return simulate(chosen, server.client(), console), output.getvalue()


def test_each_ranking_orders_the_replies_of_its_turn_by_the_rater() -> None:
    server = FakeServer(refit_every=100)
    report, _ = carry_out(server, rankings=3, rounds="none", replies=4)
    assert report["rankings"] == 3
    assert [ranking["turn"] for ranking in server.rankings] == [1, 2, 3]
    assert server.rankings[1]["ranks"] == {"20": 3, "21": 1, "22": 3, "23": 2}
    assert len({ranking["idempotency_key"] for ranking in server.rankings}) == 3
    assert {asked["replies"] for asked in server.asked} == {4}
    assert server.rounds == []


def test_prompts_to_rank_are_never_those_to_measure_on() -> None:
    server = FakeServer(refit_every=100)
    carry_out(server, rankings=20, rounds="none", eval_prompts=3)
    held_out = {prompt["text"] for prompt in server.prompts if prompt["split"] == "held_out"}
    measured = {request["messages"][0]["content"] for request in server.completions}
    assert len(measured) == 3
    assert measured <= held_out
    assert not {asked["text"] for asked in server.asked} & held_out
    # 15 prompts are to rank: after them it begins again.
    assert [asked["text"] for asked in server.asked[15:]] == [
        asked["text"] for asked in server.asked[:5]
    ]


def test_a_seed_repeats_prompts_and_seeds_of_turns() -> None:
    asked = []
    for seed in (1, 1, 2):
        server = FakeServer(refit_every=100)
        carry_out(server, seed=seed, rounds="none")
        asked.append(server.asked)
    assert asked[0] == asked[1]
    assert asked[0] != asked[2]


def test_rounds_are_waited_for_and_the_new_version_is_measured_against_v0() -> None:
    server = FakeServer(refit_every=4)
    report, output = carry_out(server, rankings=4, eval_prompts=4, rounds="automatic")
    (outcome,) = report["rounds"]
    assert (outcome["state"], outcome["result_version"]) == ("succeeded", "v1")
    assert outcome["events"] == [{"kind": "gate_passed", "text": "Held-out 71% [ok]."}]
    assert "Held-out 71% [ok]." in output
    assert "Round 1 started (reward, ppo)." in output
    baseline, trained = report["versions"]
    assert (baseline["version"], baseline["mean_score"], baseline["mean_words"]) == ("v0", -10, 10)
    assert baseline["score_difference"] is None
    assert (trained["version"], trained["mean_score"], trained["prompts"]) == ("v1", -7, 4)
    assert trained["score_difference"] == {"estimate": 3.0, "low": 3.0, "high": 3.0}
    assert trained["words_difference"] == {"estimate": -3.0, "low": -3.0, "high": -3.0}
    assert trained["share_ended_by_itself"] == 0.5
    assert report["waited_to_the_end"]
    assert report["failures"] == []


def test_both_versions_get_the_same_prompts_and_seeds() -> None:
    server = FakeServer(refit_every=4)
    carry_out(server, rankings=4, eval_prompts=4, eval_replies=3, seed=9)
    by_version: dict[str, list[Any]] = {}
    for request in server.completions:
        rest = (request["messages"], request["n"], request["seed"])
        by_version.setdefault(request["model"], []).append(rest)
    assert by_version["v0"] == by_version["v1"]
    assert [seed for _, _, seed in by_version["v0"]] == [9, 10, 11, 12]


def test_a_last_round_takes_in_the_rankings_that_no_round_has_seen() -> None:
    server = FakeServer(refit_every=4)
    report, output = carry_out(server, rankings=6, eval_prompts=2)
    assert [run["requested_by"] for run in server.rounds] == ["automatic", "local"]
    assert [run["last_ranking_id"] for run in report["rounds"]] == [4, 6]
    assert [row["version"] for row in report["versions"]] == ["v0", "v1", "v2"]
    assert "Asking for a last round over all rankings." in output


def test_a_round_that_begins_by_itself_while_versions_are_measured_is_waited_for() -> None:
    server = FakeServer(refit_every=4)
    complete = server.complete

    def begins_while_measuring(body: Any) -> Answer:
        if len(server.rounds) == 1:
            server.start_round("automatic")
        return complete(body)

    server.complete = begins_while_measuring  # type: ignore[method-assign]
    report, output = carry_out(server, rankings=6, eval_prompts=2)
    assert [run["requested_by"] for run in server.rounds] == ["automatic", "automatic"]
    assert report["waited_to_the_end"]
    assert report["failures"] == []
    assert [row["version"] for row in report["versions"]] == ["v0", "v1", "v2"]
    assert "Asking for a last round" not in output


def test_no_last_round_where_every_ranking_was_seen() -> None:
    server = FakeServer(refit_every=4)
    carry_out(server, rankings=4)
    assert len(server.rounds) == 1


def test_a_round_that_ends_while_it_ranks_is_measured_then() -> None:
    server = FakeServer(refit_every=4)
    # Each ranking looks at the rounds; a look at the health advances the fake's round, which
    # the rounds list does here.
    answer = server.answer

    def advancing(method: str, path: str, body: Any) -> Answer:
        if path == "/api/rounds" and method == "GET":
            server.advance_round()
        return answer(method, path, body)

    server.answer = advancing  # type: ignore[method-assign]
    report, output = carry_out(server, rankings=10, eval_prompts=2, rounds="automatic")
    assert "v1 is live now (before: v0)." in output
    assert {"v0", "v1", "v2"} == {row["version"] for row in report["versions"]}


def test_a_busy_server_is_asked_again_and_that_is_counted() -> None:
    server = FakeServer(refit_every=100)
    server.busy_answers = 3
    server.loading_answers = 2
    report, output = carry_out(server, rankings=1, rounds="none")
    assert report["retries"] == 3
    assert report["failures"] == []
    assert "waiting for the model: converting 50%" in output


def test_failures_are_listed_and_the_rest_goes_on() -> None:
    server = FakeServer(refit_every=100)
    answered = iter([(500, {"error": {"code": "error", "message": "no luck"}})])
    server.refuse = lambda _, path, __: next(answered, None) if "ranking" in path else None
    report, _ = carry_out(server, rankings=3, rounds="none")
    assert report["rankings"] == 2
    assert report["failures"] == [
        {"method": "POST", "path": "/api/turns/1/ranking", "status": 500, "message": "no luck"}
    ]


def test_failure_after_failure_ends_it() -> None:
    server = FakeServer()
    error = {"error": {"code": "error", "message": "broken"}}
    server.refuse = lambda _, path, __: (500, error) if "turns" in path else None
    with pytest.raises(RequestFailedError, match=r"turns failed \(status 500\): broken"):
        carry_out(server, rankings=50)


def test_a_prompt_that_one_version_failed_on_leaves_the_comparison() -> None:
    server = FakeServer(refit_every=4)
    failing = {"error": {"code": "error", "message": "no"}}
    server.refuse = lambda _, path, body: (
        (500, failing)
        if path == "/v1/chat/completions" and body["model"] == "v1" and body["seed"] == 0
        else None
    )
    report, _ = carry_out(server, rankings=4, eval_prompts=4)
    assert [row["prompts"] for row in report["versions"]] == [4, 3]
    assert report["versions"][1]["paired_prompts"] == 3
    assert len(report["failures"]) == 1


def test_an_interrupted_reply_is_not_ranked() -> None:
    server = FakeServer(refit_every=100)
    turn = server.turn

    def interrupted(body: dict[str, Any]) -> Answer:
        status, content = turn(body)
        content["replies"][1]["state"] = "interrupted"
        return status, content

    server.turn = interrupted  # type: ignore[method-assign]
    carry_out(server, rankings=1, rounds="none")
    assert server.rankings[0]["ranks"] == {"10": 2, "12": 2, "13": 1}


def test_a_paused_trainer_is_not_waited_for() -> None:
    server = FakeServer(refit_every=100)
    server.paused = True
    report, output = carry_out(server, rankings=2)
    assert not report["waited_to_the_end"]
    assert "The trainer is paused" in output


def test_a_round_that_takes_too_long_is_not_waited_for() -> None:
    server = FakeServer(refit_every=2)
    server.advance_round = lambda: None  # type: ignore[method-assign]
    report, output = carry_out(server, rankings=2, max_wait=5.0)
    assert not report["waited_to_the_end"]
    assert "still runs after 5 s" in output


def test_without_prompts_it_says_how_to_add_some() -> None:
    with pytest.raises(BadInputError, match="prompts import"):
        carry_out(FakeServer(prompts=0))


def test_without_a_server_it_says_how_to_start_one() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    http = httpx.Client(transport=httpx.MockTransport(refuse), base_url="http://server.test")
    client = ApiClient(http, sleep=lambda _: None)
    with pytest.raises(RequestFailedError, match=r"server\.test.*chatrlhf serve"):
        client.wait_until_ready(lambda _: None)


def test_a_model_that_cannot_load_ends_it() -> None:
    server = FakeServer()
    failed = {"status": "failed", "message": "There is no model named tiny."}
    server.health = lambda: (200, failed)  # type: ignore[method-assign]
    with pytest.raises(RequestFailedError, match="could not load its model: There is no model"):
        carry_out(server)


def test_a_server_that_stays_busy_is_given_up() -> None:
    server = FakeServer()
    server.busy_answers = 10_000
    client = server.client(max_wait=20.0)
    with pytest.raises(RequestFailedError, match="64 turns wait"):
        client.post("/api/conversations/5/turns", {})
    # 0.5 + 1 + 2 + 4 + 8 = 15.5 s, and 10 s more pass the limit.
    assert client.retries == 6
