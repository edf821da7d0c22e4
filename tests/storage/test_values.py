from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatrlhf.errors import BadInputError
from storage.values import (
    checked_text,
    generated_text,
    pack_floats,
    pack_integers,
    to_json,
    unpack_floats,
    unpack_integers,
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (" \n\t\u3000", "empty"),
        ("a\x00b", "NUL character at place 2"),
        ("ab\ud800", "lone surrogate) at place 3"),
        ("x" * 65537, "65,537 bytes; the limit is 65,536"),
        ("é" * 32769, "65,538 bytes"),
        (3, "must be text, not int"),
    ],
)
def test_refused_text_is_named_with_its_reason(text: str, says: str) -> None:
    with pytest.raises(BadInputError, match="the message") as caught:
        checked_text(text, "the message")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["x" * 65536, "שלום \u202eabc", "👩\u200d👩\u200d👧", "e\u0301", "a\r\nb\ufeff", "\x01\x7f"],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert checked_text(text, "the message") == text


def test_generated_text_loses_only_what_cannot_be_stored() -> None:
    assert generated_text("a\x00b\ud800c👩\u200d") == "a\ufffdb\ufffdc👩\u200d"


@given(st.text())
def test_generated_text_can_always_be_stored(text: str) -> None:
    stored = generated_text(text)
    stored.encode()
    assert "\x00" not in stored
    if not any(character == "\x00" or "\ud800" <= character <= "\udfff" for character in text):
        assert stored == text


def test_json_holds_null_for_numbers_that_are_not_finite() -> None:
    value = {"b": float("nan"), "a": [float("inf"), 1.5, {"c": -float("inf")}], "ü": "é"}
    assert to_json(value) == '{"a":[null,1.5,{"c":null}],"b":null,"ü":"é"}'
    assert json.loads(to_json((1, 2))) == [1, 2]


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_token_ids_survive_packing(values: list[int]) -> None:
    assert unpack_integers(pack_integers(values)) == tuple(values)


@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_logprobs_survive_packing_as_32_bit_floats(values: list[float]) -> None:
    assert unpack_floats(pack_floats(values)) == tuple(values)


def test_packed_numbers_are_little_endian() -> None:
    assert pack_integers([1, 258]) == b"\x01\x00\x00\x00\x02\x01\x00\x00"


def test_negative_token_ids_are_refused() -> None:
    with pytest.raises(BadInputError, match="token ids"):
        pack_integers([-1])
