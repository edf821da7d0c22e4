"""Files of human preferences: the forms of a row, what is left out, and the split."""

from __future__ import annotations

import gzip
import json

import pytest
from human_pairs import HumanPair, read_pairs, split_pairs
from tiny_model import write_tiny_model

from chatrlhf.engine.requests import ChatMessage
from chatrlhf.errors import BadInputError
from chatrlhf.models.chat_format import ChatFormat
from chatrlhf.models.weights import load_tokenizer

HELLO = (ChatMessage("user", "hi"), ChatMessage("assistant", "hello"), ChatMessage("user", "why?"))
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


@pytest.fixture(scope="module")
def chat_format(tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp("pairs"), "gemma3")
    return ChatFormat(load_tokenizer(folder))


@pytest.mark.parametrize("form", ROWS)
@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz"])
def test_every_form_of_a_row_gives_the_same_pair(tmp_path, form, name):
    file = write(tmp_path / name, ROWS[form])
    assert read_pairs(file) == [HumanPair(HELLO, "because", "go\naway")]


def test_a_prompt_that_is_plain_text_is_the_users(tmp_path):
    row = {"prompt": "why?", "chosen": "because", "rejected": "no"}
    (pair,) = read_pairs(write(tmp_path / "a.jsonl", row))
    assert pair == HumanPair((ChatMessage("user", "why?"),), "because", "no")


def test_a_folder_stands_for_its_files_in_order(tmp_path):
    for name, text in (("b.jsonl", "second"), ("a.jsonl.gz", "first"), ("notes.txt", "x")):
        write(tmp_path / name, {"prompt": text, "chosen": "a", "rejected": "b"})
    assert [pair.messages[0].content for pair in read_pairs(tmp_path)] == ["first", "second"]


def test_parquet_is_read_too(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra bench")
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


def test_stages_of_one_conversation_stay_on_one_side(chat_format):
    pairs = []
    for number in range(80):
        opening = ChatMessage("user", f"question {number}")
        later = (opening, ChatMessage("assistant", "well"), ChatMessage("user", "go on"))
        pairs += [HumanPair((opening,), "a", "b"), HumanPair(later, "c", "d")]
    split = split_pairs(pairs, chat_format, 500)
    train, held_out = ({one.prompt_key for one in part} for part in (split.train, split.held_out))
    assert train.isdisjoint(held_out)
    assert len(split.train) + len(split.held_out) == 160
    assert 8 <= len(held_out) <= 34  # a quarter of 80, give or take four deviations
    assert split == split_pairs(pairs, chat_format, 500)


def test_pairs_that_are_too_long_or_out_of_order_are_counted(chat_format):
    user = ChatMessage("user", "hi")
    pairs = [
        None,
        HumanPair((user,), "short", "a" * 400),
        HumanPair((user, user), "a", "b"),
        HumanPair((user,), "yes", "no"),
    ]
    split = split_pairs(pairs, chat_format, 100)
    assert (split.unusable, split.too_long) == (2, 1)
    (example,) = (*split.train, *split.held_out)
    assert example.ranks == (1, 2)
    chosen = example.sequences[0]
    prompt = chat_format.encode_prompt([user])
    assert chosen.token_ids == (*prompt, *chat_format.encode_reply("yes"))
    assert sum(chosen.is_response) == example.reply_lengths[0] == len(chosen) - len(prompt)
