"""Prompts from files: what each kind holds, and an error for each line that is wrong."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatrlhf.errors import BadInputError
from chatrlhf.loop.exchange.prompt_files import import_steps, kind_of, read_prompts
from chatrlhf.loop.task_templates import TEMPLATES, fill_template, find_template
from storage import prompts


def read(content, kind, **options):
    """(line, text, system prompt, tags) of the right lines, and (line, problem) of the wrong."""
    data = content if isinstance(content, bytes) else content.encode()
    lines = list(read_prompts(io.BytesIO(data), kind, **options))
    good = [(one.line, one.row[0], one.row[2], json.loads(one.row[3])) for one in lines if one.row]
    return good, [(one.line, one.problem) for one in lines if one.problem]


def test_the_name_tells_the_kind():
    names = ("a.txt", "A.CSV", "a.tsv", "a.jsonl", "a.b.json", "prompts", "")
    assert [kind_of(name) for name in names] == ["text", "csv", "csv", "jsonl", "jsonl", "text",
                                                 "text"]  # fmt: skip


def test_text_has_a_prompt_a_line():
    good, wrong = read(b"\xef\xbb\xbfOne?\r\n\r\n  Two? \nbad \xff\nThree?", "text", tags=["x"])
    assert good == [(1, "One?", "", ["x"]), (3, "Two?", "", ["x"]), (5, "Three?", "", ["x"])]
    assert wrong == [(4, "it is no UTF-8 text; save the file as UTF-8.")]


def test_csv_names_its_columns_and_counts_lines_of_quoted_text():
    content = (
        'Prompt,tags,system_prompt\n"Two\nlines",a;b,Be brief.\n,,\nOne?\n"  ",,\nx,y,z,too many\n'
    )
    good, wrong = read(content, "csv")
    assert good == [(2, "Two\nlines", "Be brief.", ["a", "b"]), (5, "One?", "", [])]
    assert [line for line, _ in wrong] == [7]
    assert "4 columns, but the header names 3" in wrong[0][1]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_may_be_separated_by_other_signs(separator):
    good, _ = read(separator.join(["text", "tags"]) + "\n" + separator.join(["Hi", "x"]), "csv")
    assert good == [(2, "Hi", "", ["x"])]


def test_csv_that_breaks_off_keeps_what_came_before():
    good, wrong = read('text\nOne?\n"Two', "csv")
    assert good == [(2, "One?", "", [])]
    assert "The rest of the file was not read" in wrong[0][1]


def test_json_lines_may_be_strings_or_objects():
    lines = ['"Hi"', '{"text": "One?", "tags": ["a"]}', '{"prompt": "Two?"}', "{", "[1]",
             '{"text": 1}', '{"text": "a", "tags": "b"}', '{"text": " "}']  # fmt: skip
    good, wrong = read("\n".join(lines), "jsonl", tags=["t"])
    assert good == [(1, "Hi", "", ["t"]), (2, "One?", "", ["a", "t"]), (3, "Two?", "", ["t"])]
    assert [line for line, _ in wrong] == [4, 5, 6, 7, 8]
    assert "the prompt is empty" in wrong[-1][1]


@pytest.mark.parametrize(
    ("content", "kind", "problem"),
    [
        ("", "text", "no prompts"),
        ("\n \n", "text", "no prompts"),
        ("text\n", "csv", "no prompts"),
        ("id,name\n1,a", "csv", "names no column text or prompt, but: id, name"),
        (b"text\n\xff", "csv", "Line 2 is no UTF-8"),
        ("", "jsonl", "empty"),
    ],
)
def test_a_file_without_prompts_says_so(content, kind, problem):
    with pytest.raises(BadInputError, match=problem):
        read(content, kind)


def test_too_many_and_too_long_tags_are_refused():
    _, wrong = read("Hi", "text", tags=[str(number) for number in range(17)])
    assert "17 tags" in wrong[0][1]
    _, wrong = read("Hi", "text", tags=["x" * 41])
    assert "41 characters" in wrong[0][1]


def test_a_template_makes_prompts_of_texts():
    good, wrong = read("Long text.", "text", template=find_template("summarise"))
    assert good[0][1] == "Summarise this text in two or three sentences.\n\nLong text."
    assert good[0][3] == ["summarise"]
    assert wrong == []


def test_an_import_counts_what_was_new_known_and_wrong(db):
    prompts.add_prompts(db, [("Known?", "", [])])
    content = "\n".join(f'"Prompt {number}"' for number in range(450)) + '\n"Known?"\n{\n"Known?"'
    reports = list(import_steps(db, read_prompts(io.BytesIO(content.encode()), "jsonl")))
    assert [one.lines for one in reports] == [200, 400, 453]
    last = reports[-1]
    assert (last.added, last.duplicates, last.failed, last.fraction) == (450, 2, 1, 1.0)
    assert [error.line for error in last.errors] == [452]
    assert len(prompts.list_prompts(db)) == 451
    assert 0 < reports[0].fraction < reports[1].fraction < 1


@given(st.binary(max_size=300), st.sampled_from(["text", "csv", "jsonl"]))
def test_no_bytes_break_the_reader(data, kind):
    try:
        lines = list(read_prompts(io.BytesIO(data), kind))
    except BadInputError:
        return
    assert lines
    assert all(bool(line.row) != bool(line.problem) for line in lines)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda one: one.name)
def test_every_template_takes_a_text_alone_and_shows_it_once(template):
    text = "Braces {text} and {0} stay as they are"
    assert fill_template(template, {"text": text}).count(text) == 1
    assert template.fields[0].name == "text"
    with pytest.raises(BadInputError, match="is empty"):
        fill_template(template, {"text": " "})
    with pytest.raises(BadInputError, match="no field 'other'"):
        fill_template(template, {"text": "a", "other": "b"})


def test_fields_go_to_their_places():
    made = fill_template(find_template("classify"), {"text": "T", "classes": "cat, dog"})
    assert made.startswith("Which of these fits the text best: cat, dog?")
    with pytest.raises(BadInputError, match="chat, summarise"):
        find_template("poem")
