"""Replies made ahead: how many, when, and what becomes of them."""

from __future__ import annotations

import random
import threading
import time

import pytest
from fake_engine import FakeEngine
from rated_queue import fill_pool
from waiting import wait_for

from chatrlhf.engine.requests import Failed
from chatrlhf.errors import LoadingError
from chatrlhf.loop.rating_queue import RatingQueue
from chatrlhf.loop.replies_ahead import RepliesAhead
from chatrlhf.loop.turns import Turns
from chatrlhf.settings import QueueSettings, Settings
from storage import people, prompts, queue, rankings
from storage.database import open_database


class CountedEngine(FakeEngine):
    """Says how many requests run, as the real one; ``others`` are those of somebody else."""

    def __init__(self) -> None:
        super().__init__()
        self.others = 0
        self.ended = 0

    def statistics(self):
        return {"active": len(self.requests) - self.ended, "queued": self.others}

    def _speak(self, request, stream):
        super()._speak(request, stream)
        self.ended += 1


class World:
    """A data folder, and what runs on it until ``stop``."""

    def __init__(self, folder, **settings):
        self.db = open_database(folder / "chatrlhf.db")
        self.me = people.ensure_local_person(self.db).id
        self.engine = CountedEngine()
        self.engine.start()
        for name in ("v1", "v2"):
            self.engine.load_version(name, folder / name)
        self.engine.set_live("v1")
        made = Settings(data_dir=folder, queue=QueueSettings(repeat_share=0.0, **settings))
        self.turns = Turns(self.db, self.engine, concurrent_turns=8)
        self.queue = RatingQueue(self.db, made, lambda: self.turns, random.Random(0))
        self.ahead = RepliesAhead(self.db, self.queue, self.turns, self.engine)

    def use(self):
        """A person asks for an item."""
        return self.queue.next_item(self.me)

    def settle(self):
        """Do all that there is to do; how many items were made."""
        made = 0
        while True:
            wait_for(lambda: self.engine.statistics()["active"] == 0, 20.0)
            if not self.ahead.step():
                return made
            made += 1
            assert made < 50

    def items(self):
        return [row["turn_id"] for row in self.db.rows("SELECT turn_id FROM queue_items")]

    def wait_written(self):
        wait_for(lambda: not self.db.rows("SELECT 1 FROM replies WHERE state = 'streaming'"), 20.0)

    def rate(self, found):
        self.wait_written()
        replies = self.db.rows("SELECT id FROM replies WHERE turn_id = ?", [found.assigned.turn_id])
        ranks = {row["id"]: place for place, row in enumerate(replies, start=1)}
        return rankings.save_ranking(self.db, found.assigned.turn_id, self.me, ranks)

    def stop(self):
        if self.db._closed:
            return
        self.ahead.stop()
        self.engine.go.set()
        self.turns.stop(0.0)
        self.engine.stop()
        self.db.close()


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, ahead=3)
    fill_pool(made.db, 8)
    yield made
    made.stop()


def test_nothing_is_made_before_anybody_uses_the_queue(world):
    assert world.settle() == 0
    assert world.engine.requests == []


def test_so_many_items_wait_and_no_more(world):
    world.use()
    world.wait_written()
    assert world.settle() == 3
    assert len(world.items()) == 4
    assert world.settle() == 0


def test_each_rating_makes_room_for_one_more(world):
    world.rate(world.use())
    world.settle()
    for more in (1, 1, 1, 1, 0, 0, 0):
        found = world.use()
        assert world.settle() == more
        world.rate(found)
    assert world.use().state == "done"
    assert len(world.engine.requests) == 8  # one for each prompt, none twice


def test_how_many_can_be_set(world):
    world.use()
    world.wait_written()
    world.queue.choose(ahead=1)
    assert world.settle() == 1
    world.queue.choose(ahead=0)
    world.rate(world.use())
    world.use()
    assert world.settle() == 0


def test_it_waits_while_others_ask_the_engine(world):
    world.use()
    world.wait_written()
    world.engine.others = 1
    assert world.settle() == 0
    world.engine.others = 0
    assert world.settle() == 3


def test_a_chat_that_comes_in_ends_it_and_nothing_stays(world):
    world.use()
    world.wait_written()
    before = world.items()
    world.engine.go.clear()
    result = []
    worker = threading.Thread(target=lambda: result.append(world.ahead.step()))
    worker.start()
    wait_for(lambda: len(world.items()) == 2, 20.0)
    world.engine.others = 1
    wait_for(world.engine.streams[-1].all_cancelled.is_set, 20.0)
    world.engine.go.set()
    worker.join(10)
    assert result == [False]
    assert world.items() == before
    assert len(world.db.rows("SELECT id FROM conversations")) == len(before)


def test_what_a_person_was_given_is_not_ended_by_a_chat(world):
    world.use()
    world.wait_written()
    world.rate(world.use())
    world.engine.go.clear()
    worker = threading.Thread(target=world.ahead.step)
    worker.start()
    wait_for(lambda: len(world.items()) == 2, 20.0)
    found = world.use()  # is watched while it is written
    world.engine.others = 1
    time.sleep(0.4)
    world.engine.go.set()
    worker.join(10)
    world.wait_written()
    assert found.assigned.turn_id in world.items()
    assert {row["state"] for row in world.db.rows("SELECT state FROM replies")} == {"complete"}


def test_a_server_that_starts_again_goes_on_and_makes_nothing_twice(world, tmp_path):
    world.use()
    world.wait_written()
    world.queue.choose(ahead=2)
    assert world.settle() == 2
    items = world.items()
    world.stop()
    again = World(tmp_path, ahead=3)
    assert again.queue.choices.ahead == 2
    assert again.settle() == 0
    again.queue.choose(ahead=4)
    assert again.settle() == 2
    assert again.items()[:3] == items
    again.stop()


def test_replies_of_an_older_version_are_made_anew_unless_somebody_saw_them(world):
    shown = world.use()
    world.wait_written()
    world.settle()
    world.engine.set_live("v2")
    assert world.settle() == 3
    made_by = world.db.rows(
        "SELECT DISTINCT replies.version, queue_items.turn_id FROM queue_items "
        "JOIN replies ON replies.turn_id = queue_items.turn_id ORDER BY queue_items.turn_id"
    )
    assert [row["version"] for row in made_by] == ["v1", "v2", "v2", "v2"]
    assert made_by[0]["turn_id"] == shown.assigned.turn_id


def test_a_prompt_that_the_engine_refuses_is_tried_once(world):
    world.use()
    world.wait_written()
    world.engine.fail_before_start = Failed("context_overflow", "Too long.", 422)
    world.ahead.step()
    world.engine.fail_before_start = None
    assert world.settle() == 3
    asked = [request.messages[-1].content for request in world.engine.requests]
    assert len(asked) == len(set(asked)) == 5


def test_deleted_prompts_lose_the_replies_that_wait(world):
    world.use()
    world.wait_written()
    world.settle()
    for prompt in prompts.list_prompts(world.db)[1:]:
        prompts.delete_prompt(world.db, prompt.id)
    assert world.settle() == 0
    assert len(world.items()) == 1


def test_while_the_model_loads_what_is_ready_is_handed_out(world):
    world.rate(world.use())
    world.settle()

    def not_yet():
        raise LoadingError("The model is still loading.")

    world.queue._turns = not_yet
    assert world.use().state == "ready"
    terms = queue.Terms(overlap=1)
    while (found := world.use()).state == "ready":
        world.rate(found)
    assert found.state == "loading"
    assert found.message == "The model is still loading."
    assert found.remaining == queue.remaining(world.db, world.me, terms) == 4


def test_the_thread_fills_up_by_itself(world):
    world.ahead.start()
    world.use()
    wait_for(lambda: len(world.items()) == 4, 20.0)
