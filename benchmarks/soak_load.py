"""The clients of a soak: each request has exactly one outcome, and none may be lost."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

URL = "/v1/chat/completions"
TIMEOUT_SECONDS = 120.0
TOO_LONG = "word " * 12_000  # just below the 64 KB that a message may have
# Replies that must not change, whatever goes on beside them.
FIXED_SEED, FIXED_TOKENS = 11, 32


@dataclass
class Tally:
    """Outcomes by kind of request; ``lost`` and ``wrong`` say what happened."""

    outcomes: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    started: int = 0

    @property
    def ended(self) -> int:
        """Requests with an outcome."""
        return self.outcomes.total() + len(self.lost) + len(self.wrong)


class Load:
    """Asks a server in all ways, good and bad. ``versions`` are the names it may ask for."""

    def __init__(self, client: httpx.AsyncClient, versions: list[str], seed: int) -> None:
        self.client = client
        self.versions = versions
        self.tally = Tally()
        self._random = random.Random(seed)
        self._fixed: dict[str, str] = {}
        self._kinds: list[tuple[int, str, Callable[[], Awaitable[str]]]] = [
            (4, "whole", self._whole),
            (4, "stream", self._stream),
            (3, "cut stream", self._cut_stream),
            (2, "cut whole", self._cut_whole),
            (2, "fixed", self._same_as_ever),
            (1, "too long", self._too_long),
            (1, "refused", self._refused),
        ]

    async def learn(self) -> None:
        """Note the fixed replies while nothing else goes on."""
        for version in self.versions:
            answer = await self._post(self._fixed_body(version))
            answer.raise_for_status()
            self._fixed[version] = _text(answer)

    async def work(self, until: Callable[[], bool]) -> None:
        """Ask one request after the other."""
        weights = [weight for weight, _, _ in self._kinds]
        while not until():
            _, name, ask = self._random.choices(self._kinds, weights)[0]
            await self._count(name, ask)

    async def flood(self, count: int) -> None:
        """Ask many at once, far more than may wait."""
        await asyncio.gather(*(self._count("flood", self._short) for _ in range(count)))

    async def _count(self, name: str, ask: Callable[[], Awaitable[str]]) -> None:
        self.tally.started += 1
        try:
            outcome = await ask()
        except (httpx.HTTPError, AssertionError, KeyError, ValueError) as error:
            self.tally.lost.append(f"{name}: {type(error).__name__}: {error}")
            return
        if outcome.startswith("wrong"):
            self.tally.wrong.append(f"{name}: {outcome}")
        else:
            self.tally.outcomes[f"{name}: {outcome}"] += 1

    def _body(self, **more: Any) -> dict[str, Any]:
        words = self._random.choices(["cat", "dog", "house", "rain", "seven", "why"], k=12)
        return {
            "model": self._random.choice(["chatrlhf", "chatrlhf", *self.versions]),
            "messages": [{"role": "user", "content": " ".join(words)}],
            "n": self._random.randint(1, 4),
            "max_tokens": self._random.choice([4, 16, 48]),
            **more,
        }

    def _fixed_body(self, version: str) -> dict[str, Any]:
        message = {"role": "user", "content": "What is two and two, and why?"}
        sampling = {"seed": FIXED_SEED, "max_tokens": FIXED_TOKENS, "temperature": 1.0}
        return {"model": version, "messages": [message], **sampling}

    async def _post(self, body: dict[str, Any]) -> httpx.Response:
        return await self.client.post(URL, json=body, timeout=TIMEOUT_SECONDS)

    async def _whole(self) -> str:
        return await self._answered(self._body())

    async def _short(self) -> str:
        return await self._answered(self._body(n=1, max_tokens=4))

    async def _answered(self, body: dict[str, Any]) -> str:
        answer = await self._post(body)
        if answer.status_code == 503:
            return _shed(answer)
        assert answer.status_code == 200, answer.text
        reasons = [choice["finish_reason"] for choice in answer.json()["choices"]]
        assert len(reasons) == body["n"], answer.text
        return "answered"

    async def _stream(self) -> str:
        body = self._body(stream=True)
        async with self.client.stream("POST", URL, json=body, timeout=TIMEOUT_SECONDS) as answer:
            if answer.status_code == 503:
                await answer.aread()
                return _shed(answer)
            assert answer.status_code == 200, (await answer.aread()).decode()
            lines = [line async for line in answer.aiter_lines() if line.startswith("data: ")]
        assert lines[-1] == "data: [DONE]", lines[-1]
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        assert not any("error" in chunk for chunk in chunks), chunks[-1]
        ends = [c for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
        assert len(ends) == body["n"], lines[-2]
        return "answered"

    async def _cut_stream(self) -> str:
        body = self._body(stream=True, max_tokens=200)
        wanted = self._random.randint(1, 12)
        async with self.client.stream("POST", URL, json=body, timeout=TIMEOUT_SECONDS) as answer:
            if answer.status_code == 503:
                await answer.aread()
                return _shed(answer)
            assert answer.status_code == 200, (await answer.aread()).decode()
            seen = 0
            async for _ in answer.aiter_lines():
                seen += 1
                if seen >= wanted:
                    return "cut"
        return "answered"

    async def _cut_whole(self) -> str:
        body = self._body(max_tokens=200)
        try:
            answer = await self.client.post(URL, json=body, timeout=self._random.uniform(0.01, 0.5))
        except httpx.TimeoutException:
            return "cut"
        return _shed(answer) if answer.status_code == 503 else "answered"

    async def _same_as_ever(self) -> str:
        version = self._random.choice(self.versions)
        answer = await self._post(self._fixed_body(version))
        if answer.status_code == 503:
            return _shed(answer)
        assert answer.status_code == 200, answer.text
        found, expected = _text(answer), self._fixed[version]
        return "same" if found == expected else f"wrong: {version} said {found!r}"

    async def _too_long(self) -> str:
        message = {"role": "user", "content": TOO_LONG}
        answer = await self._post(self._body(messages=[message]))
        return _refused_with(answer, "context_length_exceeded")

    async def _refused(self) -> str:
        bad: list[tuple[dict[str, Any], str]] = [
            ({"model": "v999"}, "model_not_found"),
            ({"n": 99}, "invalid_value"),
            ({"temperature": -1}, "invalid_value"),
            ({"logit_bias": {"1": 5}}, "unsupported_parameter"),
        ]
        more, code = self._random.choice(bad)
        return _refused_with(await self._post(self._body(**more)), code)


def _shed(answer: httpx.Response) -> str:
    """A request that the server had no room for: it must say so, and when to come again."""
    assert answer.headers["retry-after"] == "1", answer.headers
    assert answer.json()["error"]["type"] == "server_error", answer.text
    return "shed"


def _refused_with(answer: httpx.Response, code: str) -> str:
    if answer.status_code == 503:
        return _shed(answer)  # no slot for its version: it was not looked at
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]["code"] == code, answer.text
    return "refused"


def _text(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])
