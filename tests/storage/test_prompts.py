"""Prompts of the pool: changed, deleted and brought back, found by tag and text."""

from __future__ import annotations

import pytest

from chatrlhf.errors import BadInputError, ConflictError, NotFoundError
from storage import prompts


@pytest.fixture
def pool(db):
    rows = [
        ("Was ist ein Wal?", "Be brief.", ["animals", "German"]),
        ("What is a whale?", "", ["animals"]),
        ("Sum 1 and 2", "", []),
    ]
    assert prompts.add_prompts(db, rows) == 3
    return prompts.list_prompts(db)


def test_prompts_are_found_by_tag_and_by_text_of_any_case(db, pool):
    assert [one.id for one in prompts.list_prompts(db, tag="animals")] == [1, 2]
    assert prompts.list_prompts(db, tag="animal") == []
    assert [one.id for one in prompts.list_prompts(db, containing="WHAL")] == [2]
    assert [one.id for one in prompts.list_prompts(db, limit=1, after_id=1)] == [2]
    assert prompts.list_prompts(db, containing="100%_") == []
    assert prompts.list_tags(db) == [("animals", 2), ("German", 1)]
    assert len(prompts.list_prompts(db)) == 3


def test_what_is_not_named_stays_when_a_prompt_changes(db, pool):
    changed = prompts.change_prompt(db, 1, text="Was ist ein Hai?")
    assert (changed.system_prompt, changed.tags) == ("Be brief.", ("animals", "German"))
    assert changed.split == prompts.split_of("Was ist ein Hai?")
    assert prompts.change_prompt(db, 1, tags=["x", "x"]).tags == ("x",)
    assert prompts.change_prompt(db, 1, system_prompt="").system_prompt == ""
    assert prompts.get_prompt(db, 1).text == "Was ist ein Hai?"


@pytest.mark.parametrize("change", [{"text": " "}, {"tags": [""]}, {"system_prompt": "a\x00"}])
def test_a_refused_change_changes_nothing(db, pool, change):
    with pytest.raises(BadInputError):
        prompts.change_prompt(db, 1, **change)
    assert prompts.get_prompt(db, 1) == pool[0]


def test_two_prompts_never_have_the_same_text(db, pool):
    with pytest.raises(ConflictError, match="prompt 2 has this text"):
        prompts.change_prompt(db, 1, text="What is a whale?")
    prompts.delete_prompt(db, 2)
    assert prompts.change_prompt(db, 1, text="What is a whale?").id == 1
    with pytest.raises(NotFoundError, match="has been erased"):
        prompts.restore_prompt(db, 2)


def test_a_deleted_prompt_is_nowhere_until_it_is_restored(db, pool):
    prompts.delete_prompt(db, 1)
    assert [one.id for one in prompts.list_prompts(db)] == [2, 3]
    assert prompts.list_tags(db) == [("animals", 1)]
    for act in (prompts.get_prompt, prompts.delete_prompt):
        with pytest.raises(NotFoundError, match="no prompt 1"):
            act(db, 1)
    assert prompts.restore_prompt(db, 1) == pool[0]
    assert prompts.list_prompts(db) == pool


def test_adding_a_deleted_prompt_brings_it_back_as_it_is_now(db, pool):
    prompts.delete_prompt(db, 1)
    assert prompts.add_prompts(db, [(pool[0].text, "", ["new"]), (pool[1].text, "", ["no"])]) == 1
    assert prompts.get_prompt(db, 1).tags == ("new",)
    assert prompts.get_prompt(db, 2) == pool[1]


def test_a_deleted_prompt_is_erased_after_a_day(db, pool):
    prompts.delete_prompt(db, 1)
    assert prompts.erase_deleted(db) == 0
    assert prompts.erase_deleted(db, days=0) == 1
    with pytest.raises(NotFoundError, match="write it again"):
        prompts.restore_prompt(db, 1)


def test_a_pool_that_was_emptied_is_not_one_that_was_never_filled(db):
    assert prompts.never_filled(db)
    prompts.add_prompts(db, [("One?", "", [])])
    prompts.delete_prompt(db, 1)
    prompts.erase_deleted(db, days=0)
    assert not prompts.never_filled(db)
