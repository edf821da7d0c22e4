from __future__ import annotations

import logging
import threading

import pytest
from waiting import wait_for

from chatrlhf.errors import ConflictError
from chatrlhf.loop.background import BackgroundLoop


class Work:
    """Steps that are counted, and do what ``does`` says: a value to return, or what to raise."""

    def __init__(self, *does):
        self.does = list(does)
        self.steps = 0

    def __call__(self):
        self.steps += 1
        todo = self.does.pop(0) if self.does else False
        if isinstance(todo, Exception):
            raise todo
        return todo


@pytest.fixture
def begin():
    begun = []

    def start(work, poll_seconds=60.0):
        loop = BackgroundLoop("tea", work, poll_seconds)
        begun.append(loop)
        loop.start()
        return loop

    yield start
    for loop in begun:
        loop.stop()


def test_a_step_that_worked_is_followed_at_once(begin):
    work = Work(True, True, True)
    begin(work)
    wait_for(lambda: work.steps == 4, 10.0)


def test_after_a_step_that_did_not_it_waits_until_it_is_poked(begin):
    work = Work()
    loop = begin(work)
    wait_for(lambda: work.steps == 1, 10.0)
    loop.poke()
    wait_for(lambda: work.steps == 2, 10.0)


def test_it_looks_again_by_itself(begin):
    work = Work()
    begin(work, poll_seconds=0.01)
    wait_for(lambda: work.steps > 3, 10.0)


def test_failures_do_not_end_it_and_are_told_once_while_they_are_alike(begin, caplog):
    alike = ConflictError("no water")
    work = Work(alike, alike, KeyError("cup"), False, alike)
    with caplog.at_level(logging.WARNING):
        begin(work, poll_seconds=0.01)
        wait_for(lambda: work.steps > 5, 10.0)
    told = [record.message for record in caplog.records]
    assert told == ["tea waits: no water", "tea waits: 'cup'", "tea waits: no water"]
    assert [bool(record.exc_info) for record in caplog.records] == [False, True, False]


def test_stopping_waits_for_the_step_that_runs_and_begins_no_other():
    entered, go_on = threading.Event(), threading.Event()
    steps = []

    def step():
        steps.append(loop.is_stopping)
        entered.set()
        go_on.wait(10.0)
        return True

    loop = BackgroundLoop("tea", step, 60.0)
    loop.start()
    assert entered.wait(10.0)
    stopper = threading.Thread(target=loop.stop)
    stopper.start()
    wait_for(lambda: loop.is_stopping, 10.0)
    assert stopper.is_alive()
    go_on.set()
    stopper.join(10.0)
    assert steps == [False]
