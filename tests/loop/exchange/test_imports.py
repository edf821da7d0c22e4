"""Files of other programs: what each record comes to, and what a bad one does."""

from __future__ import annotations

import gzip
import io
import json

import pyarrow
import pytest
from exchanged import dump, exported, lines, load
from pyarrow import parquet

from chatrlhf.errors import BadInputError
from chatrlhf.loop.exchange import record_files
from storage import conversations, demonstrations, labels, people, prompts, rankings
from storage.records import Message

USER = {"role": "user", "content": "why?"}
WHY = (Message("user", "why?"),)


def ranked(db):
    """Every ranking as (rater, messages, {reply: rank})."""
    names = {person.id: person.name for person in people.list_people(db)}
    return [
        (names[turn.person_id], turn.messages, dict(zip(turn.replies, turn.ranks, strict=True)))
        for turn in rankings.ranked_turns(db)
    ]


def labelled(db):
    return [
        (reply.text, label.label, label.value)
        for reply in labels.labelled_replies(db)
        for label in reply.labels
    ]


def written(db):
    return [(one.messages, one.text) for one in demonstrations.list_demonstrations(db)]


# --- hh-rlhf and TRL ----------------------------------------------------------------------


def test_a_transcript_becomes_a_conversation_with_a_ranked_turn(db):
    context = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: why?\n\nAssistant:"
    row = {"chosen": f"{context} because", "rejected": f"{context} no"}
    report = load(db, [row])
    assert (report.added.conversations, report.added.turns, report.added.rankings) == (1, 2, 1)
    messages = (Message("user", "hi"), Message("assistant", "hello"), *WHY)
    assert ranked(db) == [("local", messages, {"because": 1, "no": 2})]
    assert report.formats == {"hh-rlhf": 1}
    me = people.ensure_local_person(db)
    assert conversations.list_conversations(db, me.id) == []  # a data set is no chat
    assert load(db, [row]).duplicates == 1


TRL = {
    "preference": (
        {
            "prompt": [USER],
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
        },
        lambda db: ranked(db) == [("local", WHY, {"a": 1, "b": 2})],
    ),
    "implicit prompt": (
        {
            "chosen": [USER, {"role": "assistant", "content": "a"}],
            "rejected": [USER, {"role": "assistant", "content": "b"}],
        },
        lambda db: ranked(db) == [("local", WHY, {"a": 1, "b": 2})],
    ),
    "texts": (
        {"prompt": "why?", "chosen": "a", "rejected": "b"},
        lambda db: ranked(db) == [("local", WHY, {"a": 1, "b": 2})],
    ),
    "prompt-completion": (
        {"prompt": [USER], "completion": [{"role": "assistant", "content": "so"}]},
        lambda db: written(db) == [(WHY, "so")],
    ),
    "messages": (
        {"messages": [USER, {"role": "assistant", "content": "so"}]},
        lambda db: written(db) == [(WHY, "so")],
    ),
    "unpaired": (
        {"prompt": "why?", "completion": "so", "label": False},
        lambda db: labelled(db) == [("so", "bad", True)],
    ),
    "prompt only": (
        {"prompt": [{"role": "system", "content": "Be brief"}, USER]},
        lambda db: (
            [(one.text, one.system_prompt) for one in prompts.list_prompts(db)]
            == [("why?", "Be brief")]
        ),
    ),
}


@pytest.mark.parametrize("form", TRL)
@pytest.mark.parametrize("kind", ["jsonl", "gzip", "array", "indented", "parquet", "windows"])
def test_each_form_of_trl_in_each_kind_of_file(db, form, kind):
    row, is_there = TRL[form]
    data = {
        "jsonl": lines(row),
        "gzip": gzip.compress(lines(row)),
        "array": json.dumps([row]).encode(),
        "indented": json.dumps([row], indent=2).encode(),
        "windows": b"\xef\xbb\xbf" + lines(row).replace(b"\n", b"\r\n"),
    }
    if kind == "parquet":
        file = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist([row]), file)
        data["parquet"] = file.getvalue()
    report = load(db, data[kind])
    assert (report.failed, report.duplicates) == (0, 0)
    assert is_there(db)
    again = load(db, data[kind])
    assert (again.duplicates, bool(again.added)) == (1, False)


def test_our_own_trl_exports_come_back_in(db, new_db):
    load(db, [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "completion": "c"}])
    other = new_db()
    for form in ("trl", "trl-sft"):
        assert load(other, dump(db, form)).failed == 0
    assert ranked(other) == ranked(db)
    assert written(other) == written(db)


# --- Argilla ------------------------------------------------------------------------------

FIELDS = {"instruction": "why?", "response-1": "one", "response-2": "two", "response-3": "three"}


def test_argilla_rankings_of_version_2(db):
    record = {
        "id": "7",
        "fields": FIELDS,
        "metadata": {},
        "suggestions": {"preference": {"value": ["response-3"], "score": None, "agent": "m"}},
        "responses": {
            "preference": [
                {"value": ["response_2", "response_1", "response_3"], "user_id": "ann"},
                {"value": ["response_1", "response_2", "response_3"], "user_id": "bob"},
            ],
            "comment": [{"value": "two is nice", "user_id": "ann"}],
            "corrected": [{"value": "four", "user_id": "bob"}],
        },
        "vectors": {},
        "_server_id": None,
    }
    report = load(db, [record])
    assert (report.added.conversations, report.added.rankings, report.failed) == (1, 2, 0)
    assert ranked(db) == [
        ("argilla:ann", WHY, {"one": 2, "two": 1, "three": 3}),
        ("argilla:bob", WHY, {"one": 1, "two": 2, "three": 3}),
    ]
    assert [one.comment for one in rankings.list_rankings(db)] == ["two is nice", ""]
    assert written(db) == [(WHY, "four")]
    assert load(db, [record]).duplicates == 1


def test_argilla_flattened_records_with_a_draft(db):
    record = {
        "prompt": "why?",
        "response_a": "one",
        "response_b": "two",
        "better.responses": ["response_b", "tie", "response_a"],
        "better.responses.users": ["ann", "bob", "eve"],
        "better.responses.status": ["submitted", "submitted", "draft"],
    }
    load(db, [record])
    assert ranked(db) == [
        ("argilla:ann", WHY, {"one": 2, "two": 1}),
        ("argilla:bob", WHY, {"one": 1, "two": 1}),
    ]


@pytest.mark.parametrize(
    "answers",
    [
        [
            {
                "user_id": "ann",
                "status": "submitted",
                "value": [
                    {"value": "reply-1", "rank": 2},
                    {"value": "reply-2", "rank": 1},
                    {"value": "reply-3", "rank": 2},
                ],
            }
        ],
        {
            "user_id": ["ann"],
            "status": ["submitted"],
            "value": [{"value": ["reply-1", "reply-2", "reply-3"], "rank": [2, 1, 2]}],
        },
    ],
)
def test_argilla_version_1_keeps_ties(db, answers):
    record = {"prompt": "why?", "reply-1": "a", "reply-2": "b", "reply-3": "c", "order": answers}
    load(db, [record])
    assert ranked(db) == [("argilla:ann", WHY, {"a": 2, "b": 1, "c": 2})]


# --- Label Studio -------------------------------------------------------------------------


def task(data, *results, **annotation):
    made = {"id": 3, "result": list(results), "completed_by": 5, "was_cancelled": False}
    return {"id": 1, "data": data, "annotations": [{**made, **annotation}], "predictions": []}


ITEMS = {
    "prompt": "why?",
    "items": [
        {"id": "llm_1", "title": "1", "body": "one"},
        {"id": "llm_2", "title": "2", "body": "two"},
        {"id": "llm_3", "title": "3", "body": "three"},
    ],
}


def test_label_studio_ranker(db):
    value = {"ranker": {"rank": ["llm_3", "llm_1", "llm_2"]}}
    result = {"from_name": "rank", "to_name": "results", "type": "ranker", "value": value}
    who = {"id": 5, "email": "ann@x.org"}
    when = "2025-03-09T22:16:08.746926Z"
    load(db, json.dumps([task(ITEMS, result, completed_by=who, updated_at=when)]).encode())
    assert ranked(db) == [
        ("label-studio:ann@x.org", WHY, {"three": 1, "one": 2, "two": 3}),
    ]
    assert rankings.list_rankings(db)[0].created_at == "2025-03-09T22:16:08.746Z"


def test_label_studio_buckets_are_labels(db):
    buckets = {"_": ["llm_1"], "Biased results": ["llm_2"], "relevant": ["llm_3"]}
    load(db, [task(ITEMS, {"type": "ranker", "value": {"ranker": buckets}})])
    assert ranked(db) == []
    assert [one for one in labelled(db) if one[2]] == [
        ("two", "biased-results", True),
        ("three", "relevant", True),
    ]
    assert len(labelled(db)) == 6


def test_label_studio_pairwise_and_text(db):
    data = {"prompt": "why?", "answer1": "a", "answer2": "b"}
    pair = {"type": "pairwise", "value": {"selected": "right"}}
    load(
        db,
        [
            task(data, pair),
            task({"prompt": "why?"}, {"type": "textarea", "value": {"text": ["so"]}}),
        ],
    )
    assert ranked(db) == [("label-studio:5", WHY, {"a": 2, "b": 1})]
    assert written(db) == [(WHY, "so")]


# --- Open WebUI ---------------------------------------------------------------------------


def webui_chat(**ratings):
    """A chat of two models' replies to one message, and what follows the first."""
    messages = {
        "u1": {
            "id": "u1",
            "parentId": None,
            "role": "user",
            "content": "why?",
            "childrenIds": ["a1", "a2"],
        },
        "a1": {
            "id": "a1",
            "parentId": "u1",
            "role": "assistant",
            "content": "one",
            "model": "m1",
            "childrenIds": ["u2"],
        },
        "a2": {
            "id": "a2",
            "parentId": "u1",
            "role": "assistant",
            "content": "two",
            "model": "m2",
            "childrenIds": [],
        },
        "u2": {
            "id": "u2",
            "parentId": "a1",
            "role": "user",
            "content": "and?",
            "childrenIds": ["a3"],
        },
        "a3": {
            "id": "a3",
            "parentId": "u2",
            "role": "assistant",
            "content": "three",
            "model": "m1",
            "childrenIds": [],
        },
    }
    for name, rating in ratings.items():
        messages[name]["annotation"] = {"rating": rating, "tags": []}
    chat = {"title": "t", "history": {"messages": messages, "currentId": "a3"}}
    return {"id": "c", "user_id": "ann", "title": "t", "chat": chat, "updated_at": 1704067200}


def feedback(message_id, rating, siblings=None, **ratings):
    return {
        "id": "f",
        "user_id": "ann",
        "version": 0,
        "type": "rating",
        "data": {
            "rating": rating,
            "model_id": "m1",
            "sibling_model_ids": siblings,
            "reason": "helpful",
            "comment": "clear",
        },
        "meta": {"message_id": message_id, "chat_id": "c", "arena": False},
        "snapshot": {"chat": webui_chat(**ratings)},
        "created_at": 1704067100,
        "updated_at": 1704067200,
    }


def test_open_webui_a_rated_reply_beside_another_model_is_a_ranking(db):
    load(db, json.dumps([feedback("a1", "1", ["m2"])]).encode())
    assert ranked(db) == [("open-webui:ann", WHY, {"one": 1, "two": 2})]
    (saved,) = rankings.list_rankings(db)
    assert (saved.comment, saved.created_at) == ("helpful\nclear", "2024-01-01T00:00:00.000Z")


def test_open_webui_thumbs_down_loses(db):
    load(db, [feedback("a1", -1, ["m2"])])
    assert ranked(db) == [("open-webui:ann", WHY, {"one": 2, "two": 1})]


def test_open_webui_a_lone_thumb_is_a_label(db):
    load(db, [feedback("a3", -1)])
    assert ranked(db) == []
    assert labelled(db) == [("three", "bad", True)]
    (reply,) = labels.labelled_replies(db)
    context = ("why?", "one", "and?")
    assert tuple(message.content for message in reply.messages) == context


def test_open_webui_chats_with_annotations(db):
    report = load(db, [webui_chat(a1=1, a2=-1, a3=1), webui_chat()])
    assert ranked(db) == [("open-webui:ann", WHY, {"one": 1, "two": 2})]
    assert labelled(db) == [("three", "bad", False)]
    assert (report.failed, report.errors[0].line) == (1, 2)
    assert "no reply of the chat is rated" in report.errors[0].message


def test_of_two_thumbs_the_later_feedback_counts(db):
    early = {**feedback("a1", 1, ["m2"]), "updated_at": 1704060000}
    late = feedback("a2", 1, ["m1"], a1=-1)
    load(db, [late, early])  # the export has the newest first
    assert ranked(db) == [("open-webui:ann", WHY, {"one": 2, "two": 1})]
    assert rankings.list_rankings(db)[0].created_at == "2024-01-01T00:00:00.000Z"


# --- whose, and what is refused -----------------------------------------------------------


def test_ratings_of_several_can_all_be_mine(db):
    record = {
        "fields": FIELDS,
        "responses": {
            "order": [
                {"value": ["response-1", "response-2", "response-3"], "user_id": "ann"},
                {"value": ["response-3", "response-2", "response-1"], "user_id": "bob"},
            ]
        },
    }
    report = load(db, [record], mine=True)
    assert report.added.rankings == 2
    assert [name for name, _, _ in ranked(db)] == ["local", "local"]
    rater = people.create_person(db, "eve", "rater")
    load(db, [record], rater)
    assert [name for name, _, _ in ranked(db)][2:] == ["eve", "eve"]


GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "no valid JSON"),
        (b"7", "it is int, not an object"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": "\xff"}', "utf-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{}", "nothing, which is no known format"),
        (b'{"chosen": "a"}', "it needs both chosen and rejected"),
        (b'{"prompt": "p", "chosen": "a", "rejected": "a"}', "compares nothing"),
        (b'{"prompt": "p", "completion": 3}', "neither text nor messages"),
        (b'{"prompt": " ", "completion": "x"}', "message is empty"),
        (b'{"messages": [{"role": "tool", "content": "x"}]}', "role 'tool'"),
        (b'{"messages": [{"role": "user", "content": "x"}]}', "must be the assistant's"),
        (b'{"prompt": [{"role": "assistant", "content": "x"}], "completion": "y"}', "goes assis"),
        (b'{"annotation_id": 1, "annotator": 2, "rank": {}}', "Export as JSON instead"),
        (b'{"fields": {"prompt": "p", "a1": "x"}, "responses": {}}', "no submitted response"),
        (b'{"fields": {"tea": "p"}, "responses": {}}', "none of its fields is a prompt"),
        (b'{"data": {"prompt": "p"}, "annotations": []}', "no annotation"),
        (b'{"data": {"rating": 5}, "meta": {}}', "the rating is 5"),
        (b'{"data": {"rating": 1}, "meta": {}, "snapshot": null}', "does not hold the rated"),
        (b'{"data": {"rating": 1}, "meta": 3, "snapshot": 4}', "form is not the expected"),
        (b'{"chat": {"history": {"messages": 5}}}', "form is not the expected"),
        (b'{"format": "chatrlhf-1", "type": "conversation"}', "Field required"),
        (b'{"prompt": "a\\u0000b", "completion": "x"}', "NUL"),
        (b'{"prompt": "a\\ud800b", "completion": "x"}', "half of a character"),
    ],
)
def test_a_bad_line_is_named_and_the_good_ones_are_kept(db, line, words):
    report = load(db, lines(GOOD) + b"\n" + line + b"\n" + lines({**GOOD, "prompt": "q"}))
    (error,) = report.errors
    assert error.line == 3
    assert words in error.message, error.message
    assert (report.records, report.failed, report.added.rankings) == (3, 1, 2)
    assert len(db.rows("SELECT * FROM conversations")) == 2


def test_an_array_tells_the_line_of_each_element_and_ends_where_it_breaks(db):
    text = json.dumps([GOOD, {"x": 1}, {**GOOD, "prompt": "q"}], indent=1)
    report = load(db, text.encode())
    assert [error.line for error in report.errors] == [7]
    broken = text.replace('"prompt": "q"', '"prompt" "q"')
    report = load(db, broken.encode())
    assert [error.line for error in report.errors] == [7, 10]
    assert "rest of the file was not read" in report.errors[1].message
    assert load(db, text[:-1].encode()).errors[-1].message.startswith("the array has no end")


def test_a_cut_gzip_keeps_what_came_before(db):
    rows = [{**GOOD, "prompt": f"question {number} {number * 7919}"} for number in range(2000)]
    report = load(db, gzip.compress(lines(*rows))[:-2000])
    assert report.failed == 1
    assert 0 < report.added.rankings < 2000
    assert "rest of the file was not read" in report.errors[0].message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"PK\x03\x04zip", "ZIP"),
        (b"PAR1nonsense", "Parquet file cannot be read"),
        (b"\x1f\x8bnonsense", "cannot be unpacked"),
    ],
)
def test_what_is_no_file_of_records_is_refused(db, data, words):
    with pytest.raises(BadInputError, match=words):
        load(db, data)


def test_lines_have_a_limit(db, monkeypatch):
    monkeypatch.setattr(record_files, "LINE_LIMIT_BYTES", 100)
    report = load(db, lines(GOOD, {**GOOD, "prompt": "p" * 200}))
    assert (report.added.rankings, report.failed) == (1, 1)
    assert "longer than 100 bytes" in report.errors[0].message


def test_progress_comes_between_and_ends_at_one(db):
    rows = [{**GOOD, "prompt": f"{number}"} for number in range(250)]
    seen = []
    load(db, lines(*rows), progress=seen.append)
    fractions = [report.fraction for report in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(fractions) >= 4
    assert [report.records for report in seen][-1] == 250


def test_an_import_is_in_the_audit_log(db):
    load(db, [GOOD, {}])
    (entry,) = people.list_audit(db)
    assert (entry.action, entry.detail["records"], entry.detail["failed"]) == ("import", 2, 1)


def test_imported_data_sets_survive_the_round_trip_too(db, new_db):
    load(db, [GOOD, feedback("a1", 1, ["m2"])])
    other = new_db()
    load(other, dump(db))
    assert exported(other) == exported(db)
    assert load(other, [GOOD, feedback("a1", 1, ["m2"])]).duplicates == 2
