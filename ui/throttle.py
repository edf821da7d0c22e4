"""Slows down who guesses passwords: a few tries at once, then one each half minute.

Each name and each address has a bucket of tries that fills up again with time. A right password
gives its try back. The buckets are kept in memory, so a restart forgets them.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from chatrlhf.errors import TooManyAttemptsError

SECONDS_A_TRY = 30.0
TRIES_OF_NAME = 8
TRIES_OF_ADDRESS = 20
_MOST_BUCKETS = 10_000


@dataclass
class _Bucket:
    tries: float
    capacity: int
    seen: float


class Throttle:
    """The buckets of all names and addresses. Thread safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._lock = threading.Lock()

    def take(self, name: str, address: str) -> None:
        """Use up a try, or raise TooManyAttemptsError; call it before the password is looked at."""
        with self._lock:
            buckets = [self._bucket(*key) for key in _keys(name, address)]
            missing = max(1.0 - bucket.tries for bucket in buckets)
            if missing > 0.0:
                wait = math.ceil(missing * SECONDS_A_TRY)
                raise TooManyAttemptsError(
                    f"There were too many attempts to sign in. Try again in {wait} seconds.", wait
                )
            for bucket in buckets:
                bucket.tries -= 1.0

    def give_back(self, name: str, address: str) -> None:
        """The password was right: the try does not count."""
        with self._lock:
            for key in _keys(name, address):
                bucket = self._bucket(*key)
                bucket.tries = min(bucket.capacity, bucket.tries + 1.0)

    def _bucket(self, kind: str, key: str) -> _Bucket:
        moment = self._clock()
        bucket = self._buckets.get((kind, key))
        if bucket is None:
            if len(self._buckets) >= _MOST_BUCKETS:
                self._forget_full(moment)
            capacity = TRIES_OF_NAME if kind == "name" else TRIES_OF_ADDRESS
            bucket = self._buckets[kind, key] = _Bucket(capacity, capacity, moment)
        _fill(bucket, moment)
        return bucket

    def _forget_full(self, moment: float) -> None:
        for key, bucket in list(self._buckets.items()):
            _fill(bucket, moment)
            if bucket.tries >= bucket.capacity:
                del self._buckets[key]
        while len(self._buckets) >= _MOST_BUCKETS:  # all still count: the oldest go
            del self._buckets[next(iter(self._buckets))]


def _fill(bucket: _Bucket, moment: float) -> None:
    gained = (moment - bucket.seen) / SECONDS_A_TRY
    bucket.tries = min(bucket.capacity, bucket.tries + gained)
    bucket.seen = moment


def _keys(name: str, address: str) -> list[tuple[str, str]]:
    keys = [("address", _network(address))]
    return [("name", name.strip().casefold()[:200]), *keys] if name else keys


def _network(address: str) -> str:
    """The address; of IPv6 the part that one subscriber has in common."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))
