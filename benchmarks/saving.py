"""How long saving a rating takes: ``make bench-saving``.

A server of its own answers on loopback, once with an empty database and once with 100,000 rankings
in it. Each ranking of four replies is sent over a kept connection, one after another; measured are
the answer as a page waits for it, and the server's own ``saved_in_ms`` (checks and the committed
transaction). The engine is not needed and not loaded: an idle one takes no time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import platform
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from chatrlhf.app import App, build_app
from chatrlhf.errors import ModelError
from chatrlhf.loop.open_engine import Opened, Progress
from chatrlhf.settings import Settings
from storage.conversations import NewReply, create_conversation, create_turn, finish_reply
from storage.database import Database, insert
from storage.rankings import insert_ranking
from storage.records import Turn
from storage.values import now, sha256_of
from ui.server import create_server, listener_url, open_listener

TARGET_MS = 50.0
REPLIES = 4
TURNS_A_CHAT = 5
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst"]


def main() -> None:
    """Measure, print a table, and exit with 1 where the 95th percentile misses the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rankings", type=int, default=300, help="how many are measured")
    parser.add_argument("--stored", type=int, nargs="+", default=[0, 100_000],
                        help="rankings in the database before")  # fmt: skip
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    results = [measure(stored, options.rankings) for stored in options.stored]
    print(table(results))
    if options.json:
        where = {"machine": platform.processor() or platform.machine(), "target_ms": TARGET_MS}
        options.json.write_text(json.dumps({**where, "results": results}, indent=1) + "\n")
    sys.exit(any(one["answer_ms"]["p95"] > TARGET_MS for one in results))


def measure(stored: int, rankings: int) -> dict[str, Any]:
    """Milliseconds of saving, beside ``stored`` rankings."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as (app, client):
        started = time.perf_counter()
        fill(app.db, app.person.id, stored)
        filled_in = time.perf_counter() - started
        turns = new_turns(app.db, app.person.id, rankings + 20)
        answers, saves, lists = [], [], []
        order = random.Random(7)
        for number, turn in enumerate(turns):
            ranks = order.sample(range(1, REPLIES + 1), REPLIES)
            by_id = {str(one.id): rank for one, rank in zip(turn.replies, ranks, strict=True)}
            body = {"ranks": by_id, "comment": sentence(order, 6) if number % 4 == 0 else ""}
            began = time.perf_counter()
            answer = client.post(f"/api/turns/{turn.id}/ranking", json=body)
            took = 1000 * (time.perf_counter() - began)
            answer.raise_for_status()
            if number >= 20:  # the first ones warm up
                answers.append(took)
                saves.append(float(answer.json()["saved_in_ms"]))
        for query in ("", f"q={WORDS[0]}", f"q={WORDS[0]}+{WORDS[1]}", "commented=true"):
            lists.append({"query": query or "no filter", **listing(client, query)})
        size = app.db.path.stat().st_size
        return {
            "stored": stored,
            "database_bytes": size,
            "filled_in_seconds": round(filled_in, 1),
            "rankings": len(answers),
            "answer_ms": spread(answers),
            "server_ms": spread(saves),
            "lists": lists,
        }


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[App, httpx.Client]]:
    """A server in a thread of this process, and a client of it."""
    app = build_app(Settings(data_dir=folder), with_trainer=False, open_engine=no_engine)
    listener = open_listener("127.0.0.1", 0)
    app.start()
    config = uvicorn.Config(
        create_server(app, with_page=False), log_level="error", access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with httpx.Client(base_url=listener_url(listener), timeout=60.0) as client:
            yield app, client
    finally:
        server.should_exit = True
        thread.join()
        app.stop()
        listener.close()


def no_engine(_db: Database, _settings: Settings, _progress: Progress) -> Opened:
    raise ModelError("this benchmark needs no model")


def fill(db: Database, person_id: int, rankings: int) -> None:
    """Ranked turns, five a conversation, as years of chatting leave them."""
    words = random.Random(1)
    for first in range(0, rankings, 1000):
        with db.transaction() as connection:
            for number in range(first, min(first + 1000, rankings)):
                if number % TURNS_A_CHAT == 0:
                    chat = {
                        "person_id": person_id,
                        "title": sentence(words, 4),
                        "system_prompt": "",
                        "created_at": now(),
                    }
                    conversation_id = insert(connection, "conversations", chat)
                turn = {
                    "conversation_id": conversation_id,
                    "parent_reply_id": None,
                    "text": sentence(words, 12),
                    "created_at": now(),
                }
                turn_id = insert(connection, "turns", turn)
                replies = [insert(connection, "replies", reply_row(turn_id, place, words))
                           for place in range(REPLIES)]  # fmt: skip
                fields = {
                    "strength": None,
                    "comment": sentence(words, 5) if number % 20 == 0 else "",
                    "all_bad": False,
                    "idempotency_key": None,
                    "state": "active",
                    "revision_of": None,
                    "created_at": now(),
                }
                ranks = dict(zip(replies, words.sample(range(1, 5), 4), strict=True))
                insert_ranking(db, turn_id, person_id, ranks, fields)


def reply_row(turn_id: int, place: int, words: random.Random) -> dict[str, Any]:
    text = sentence(words, 60)
    return {
        "turn_id": turn_id,
        "position": place,
        "text": text,
        "text_sha256": sha256_of(text),
        "token_ids": bytes(4 * 80),
        "logprobs": bytes(4 * 80),
        "version": f"v{words.randrange(20)}",
        "seed": place,
        "sampling": '{"temperature":0.9}',
        "state": "complete",
        "finish_reason": "stop",
        "slot_type": "policy",
        "candidate": place,
        "created_at": now(),
    }


def new_turns(db: Database, person_id: int, count: int) -> list[Turn]:
    """Turns that are not ranked yet."""
    words = random.Random(2)
    chat = create_conversation(db, person_id)
    turns = []
    for _ in range(count):
        rows = [NewReply(place, "v0", place, {}) for place in range(REPLIES)]
        turn = create_turn(db, chat.id, sentence(words, 12), None, rows)
        for reply in turn.replies:
            finish_reply(
                db, reply.id, text=sentence(words, 60), token_ids=[1] * 80,
                logprobs=[-1.0] * 80, finish_reason="stop", state="complete",
            )  # fmt: skip
        turns.append(turn)
    return turns


def sentence(words: random.Random, length: int) -> str:
    return " ".join(words.choices(WORDS, k=length))


def listing(client: httpx.Client, query: str) -> dict[str, float]:
    """Milliseconds of a page of the Ratings tab and of its count; the median of five."""
    took: dict[str, list[float]] = {"page_ms": [], "count_ms": []}
    for _ in range(5):
        for name, path in (("page_ms", "?before_id=0&limit=25&"), ("count_ms", "/count?")):
            began = time.perf_counter()
            client.get(f"/api/rankings{path}{query}").raise_for_status()
            took[name].append(1000 * (time.perf_counter() - began))
    return {name: round(sorted(values)[2], 1) for name, values in took.items()}


def spread(values: list[float]) -> dict[str, float]:
    """Percentiles by the nearest rank."""
    ordered = sorted(values)
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {
        name: round(ordered[max(0, math.ceil(part * len(ordered)) - 1)], 2)
        for name, part in at.items()
    }


def table(results: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = [
        "| rankings stored | database | saving, as a page waits: p50 | p95 | p99 | longest "
        "| in the server: p50 | p95 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        answer, server = one["answer_ms"], one["server_ms"]
        lines.append(
            f"| {one['stored']:,} | {one['database_bytes'] / 1e6:.0f} MB | {answer['p50']} ms | "
            f"{answer['p95']} ms | {answer['p99']} ms | {answer['max']} ms | {server['p50']} ms | "
            f"{server['p95']} ms |"
        )
    lines += ["", "| rankings stored | filter | a page of 25 | the count |", "|---|---|---|---|"]
    for one in results:
        for row in one["lists"]:
            lines.append(
                f"| {one['stored']:,} | {row['query']} | {row['page_ms']} ms | "
                f"{row['count_ms']} ms |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
