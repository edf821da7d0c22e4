"""Files of human preferences: the forms of a row, and what is left out."""

from __future__ import annotations

import gzip
import json

import pytest

from chatrlhf.errors import BadInputError
from chatrlhf.loop.exchange.pairs import HumanPair, read_pairs
from storage.records import Message

HELLO = (Message("user", "hi"), Message("assistant", "hello"), Message("user", "why?"))
CONTEXT = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: why?\n\nAssistant:"
LISTED = [{"role": one.role, "content": one.content} for one in HELLO]

ROWS = {
    "transcripts": {"chosen": f"{CONTEXT} because", "rejected": f"{CONTEXT} go\naway "},
    "messages": {
        "chosen": [*LISTED, {"role": "assistant", "content": "because"}],
        "rejected": [*LISTED, {"role": "assistant", "content": "go\naway"}],
    },
    "a transcript and texts": {"prompt": CONTEXT, "chosen": "because", "rejected": "go\naway"},
    "messages and messages": {
        "prompt": LISTED,
        "chosen": [{"role": "assistant", "content": "because"}],
        "rejected": [{"role": "assistant", "content": "go\naway"}],
    },
}


def write(path, *rows):
    payload = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(payload) if path.suffix == ".gz" else payload)
    return path


@pytest.mark.parametrize("form", ROWS)
@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz"])
def test_every_form_of_a_row_gives_the_same_pair(tmp_path, form, name):
    file = write(tmp_path / name, ROWS[form])
    assert read_pairs(file) == [HumanPair(HELLO, "because", "go\naway")]


def test_a_prompt_that_is_plain_text_is_the_users(tmp_path):
    row = {"prompt": "why?", "chosen": "because", "rejected": "no"}
    (pair,) = read_pairs(write(tmp_path / "a.jsonl", row))
    assert pair == HumanPair((Message("user", "why?"),), "because", "no")


def test_a_folder_stands_for_its_files_in_order(tmp_path):
    for name, text in (("b.jsonl", "second"), ("a.jsonl.gz", "first"), ("notes.txt", "x")):
        write(tmp_path / name, {"prompt": text, "chosen": "a", "rejected": "b"})
    assert [pair.messages[0].content for pair in read_pairs(tmp_path)] == ["first", "second"]


def test_parquet_is_read_too(tmp_path):
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([ROWS["messages"], ROWS["messages"]])
    parquet.write_table(table, tmp_path / "a.parquet")
    assert read_pairs(tmp_path) == [HumanPair(HELLO, "because", "go\naway")] * 2


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "why?", "chosen": "same", "rejected": "same"},
        {"prompt": "why?", "chosen": "because", "rejected": " "},
        {"chosen": "Human: a\n\nAssistant: x", "rejected": "Human: b\n\nAssistant: y"},
    ],
)
def test_a_row_that_compares_nothing_is_no_pair(tmp_path, row):
    assert read_pairs(write(tmp_path / "a.jsonl", row)) == [None]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "why?", "chosen": "because"},
        {"chosen": "because", "rejected": "no"},
        {"chosen": "Human: why?", "rejected": "Human: when?"},
        {"prompt": 3, "chosen": "a", "rejected": "b"},
    ],
)
def test_a_row_of_no_known_form_is_named(tmp_path, row):
    good = {"prompt": "why?", "chosen": "a", "rejected": "b"}
    with pytest.raises(BadInputError, match=r"a\.jsonl, row 2: .*chosen and rejected"):
        read_pairs(write(tmp_path / "a.jsonl", good, row))


def test_a_path_without_pairs_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="no file ending in"):
        read_pairs(tmp_path)
