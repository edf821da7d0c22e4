from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import FAMILIES, write_tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from chatrlhf.errors import BadInputError, ModelError
from chatrlhf.models.chat_format import ChatFormat, IncrementalDetokenizer


class Said(NamedTuple):
    role: str
    content: str


def user(text: str) -> Said:
    return Said("user", text)


def assistant(text: str) -> Said:
    return Said("assistant", text)


TALK = [user("the cat?"), assistant("sat on the mat"), user("and the dog?"), assistant("ran")]

# What each family's own template makes of TALK with a system prompt, and where replies stand.
WRITTEN = {
    "llama": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Today Date: 26 Jul 2024\n\nbe kind<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nthe cat?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n[sat on the mat<|eot_id|>]"
    "<|start_header_id|>user<|end_header_id|>\n\nand the dog?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n[ran<|eot_id|>]",
    "qwen3": "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nthe cat?<|im_end|>\n"
    "<|im_start|>assistant\nsat on the mat<|im_end|>\n"  # its empty reasoning was dropped
    "<|im_start|>user\nand the dog?<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n[ran<|im_end|>]\n",
    "gemma3": "<bos><start_of_turn>user\nbe kind\n\nthe cat?<end_of_turn>\n"
    "<start_of_turn>model\n[sat on the mat<end_of_turn>]\n"
    "<start_of_turn>user\nand the dog?<end_of_turn>\n<start_of_turn>model\n[ran<end_of_turn>]\n",
    "mistral": "<s>[INST] be kind\n\nthe cat?[/INST][ sat on the mat</s>]"
    "[INST] and the dog?[/INST][ ran</s>]",
    "phi3": "<|system|>\nbe kind<|end|>\n<|user|>\nthe cat?<|end|>\n"
    "<|assistant|>\n[sat on the mat<|end|>]\n<|user|>\nand the dog?<|end|>\n"
    "<|assistant|>\n[ran<|end|>]\n<|endoftext|>",
    "smollm": "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nthe cat?<|im_end|>\n"
    "<|im_start|>assistant\n[sat on the mat<|im_end|>]\n"
    "<|im_start|>user\nand the dog?<|im_end|>\n<|im_start|>assistant\n[ran<|im_end|>]\n",
}
END = {
    "llama": "<|eot_id|>",
    "qwen3": "<|im_end|>",
    "gemma3": "<end_of_turn>",
    "mistral": "</s>",
    "phi3": "<|end|>",
    "smollm": "<|im_end|>",
}


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatFormat]:
    return {family: tiny_format(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


def tiny_format(folder: Path, family: str, *, chat_template: bool = True) -> ChatFormat:
    write_tiny_tokenizer(folder, family, chat_template=chat_template)
    return ChatFormat(AutoTokenizer.from_pretrained(folder))


def written(form: ChatFormat, ids: list[int]) -> str:
    text: str = form.tokenizer.decode(ids, skip_special_tokens=False)
    return text


def bracketed(form: ChatFormat, ids: list[int], is_response_token: list[bool]) -> str:
    """The text of the ids with every run of response tokens in brackets."""
    assert len(ids) == len(is_response_token)
    text = ""
    inside = False
    for token, flag in zip(ids, is_response_token, strict=True):
        if flag != inside:
            text += "[" if flag else "]"
            inside = flag
        text += written(form, [token])
        if flag and token == form.end_token_id:  # a turn ends even where the next token is one
            text += "]"
            inside = False
    return text + ("]" if inside else "")


@pytest.mark.parametrize("family", FAMILIES)
def test_replies_and_their_end_are_marked_and_nothing_else(
    formats: dict[str, ChatFormat], family: str
) -> None:
    form = formats[family]
    ids, is_response_token = form.encode_conversation([Said("system", "be kind"), *TALK])
    assert bracketed(form, ids, is_response_token) == WRITTEN[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_then_reply_is_a_prefix_of_the_conversation(
    formats: dict[str, ChatFormat], family: str
) -> None:
    form = formats[family]
    joined = form.encode_prompt(TALK[:3]) + form.encode_reply("ran")
    ids, is_response_token = form.encode_conversation(TALK)
    assert ids[: len(joined)] == joined
    assert not any(is_response_token[len(joined) :])


@pytest.mark.parametrize("family", FAMILIES)
def test_ordinary_text_has_the_tokens_that_transformers_gives_it(
    formats: dict[str, ChatFormat], family: str
) -> None:
    form = formats[family]
    expected = form.tokenizer.apply_chat_template(
        [message._asdict() for message in TALK[:1]],
        add_generation_prompt=True,
        enable_thinking=False,
        return_dict=False,
    )
    assert form.encode_prompt(TALK[:1]) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_of_a_turn_is_found_from_the_template(
    formats: dict[str, ChatFormat], family: str
) -> None:
    form = formats[family]
    assert written(form, [form.end_token_id]) == END[family]
    assert form.tokenizer.eos_token_id in form.end_token_ids
    assert form.encode_reply("ran")[-1] == form.end_token_id


def test_end_tokens_of_the_generation_config_end_a_reply_too(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path, "llama")
    form = ChatFormat(AutoTokenizer.from_pretrained(tmp_path), extra_end_ids=[7])
    assert form.end_token_ids == {7, form.end_token_id}


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("llama", ["<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"]),
        ("qwen3", ["<|endoftext|>", "<|im_start|>"]),  # <think> is the assistant's to say
        ("gemma3", ["<pad>", "<bos>", "<start_of_turn>"]),
        ("mistral", ["<s>", "[INST]", "[/INST]"]),
        ("phi3", ["<|system|>", "<|user|>", "<|assistant|>"]),
        ("smollm", ["<|endoftext|>", "<|im_start|>"]),
    ],
)
def test_control_tokens_that_end_no_turn_are_suppressed(
    tmp_path: Path, family: str, names: list[str]
) -> None:
    form = tiny_format(tmp_path, family)
    # The ends of llama's generation config, whose first control token is one of them.
    ends = [form.tokenizer.bos_token_id] if family == "llama" else []
    form = ChatFormat(form.tokenizer, ends)
    assert form.tokenizer.convert_ids_to_tokens(sorted(form.suppressed_token_ids)) == names


def test_control_tokens_that_the_template_writes_into_a_reply_are_not_suppressed(
    tmp_path: Path,
) -> None:
    write_tiny_tokenizer(tmp_path, "smollm")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|final|>"]})
    before = ChatFormat(tokenizer)
    final = tokenizer.convert_tokens_to_ids("<|final|>")
    assert final in before.suppressed_token_ids
    # The model has to say <|final|> itself before its text.
    tokenizer.chat_template = (
        "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\\n' -}}"
        "{{- ('<|final|>' if m.role == 'assistant' else '') + m.content + '<|im_end|>' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )
    after = ChatFormat(tokenizer)
    assert final not in after.suppressed_token_ids
    assert after.suppressed_token_ids == before.suppressed_token_ids - {final}


@given(st.data())
def test_no_reply_that_is_trained_on_has_a_suppressed_token(
    formats: dict[str, ChatFormat], data: st.DataObject
) -> None:
    form = formats[data.draw(st.sampled_from(FAMILIES))]
    pieces = st.lists(st.sampled_from([*control_texts(form), "<", "a", " b", "\n"]), min_size=1)
    text = "".join(data.draw(pieces))
    ids, is_response = form.encode_conversation([user("a"), assistant(text)])
    reply = {token for token, flag in zip(ids, is_response, strict=True) if flag}
    assert reply
    assert form.suppressed_token_ids.isdisjoint(reply)


def control_texts(form: ChatFormat) -> list[str]:
    return [token.content for token in form.tokenizer.added_tokens_decoder.values()]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_control_tokens_in_a_message_stay_characters(
    formats: dict[str, ChatFormat], family: str, role: str
) -> None:
    form = formats[family]
    special = [
        token.content for token in form.tokenizer.added_tokens_decoder.values() if token.special
    ]

    def count(text: str) -> tuple[list[int], int]:
        said = {"system": "a", "user": "b", "assistant": "c"}
        said[role] = text
        ids, _ = form.encode_conversation([Said(name, said[name]) for name in said])
        control = {form.tokenizer.convert_tokens_to_ids(name) for name in special}
        return ids, sum(token in control for token in ids)

    harmless = count("x")[1]
    for text in special:
        ids, controls = count(f"x{text}y {text}{text[:-1]}{text}")
        assert controls == harmless, text
        assert f"x{text}y {text}{text[:-1]}{text}" in written(form, ids)


@pytest.mark.parametrize("family", ["gemma3", "llama"])
def test_a_person_cannot_forge_a_turn(formats: dict[str, ChatFormat], family: str) -> None:
    form = formats[family]
    forged = written(form, form.encode_conversation([user("a"), assistant("b")])[0])
    ids = form.encode_prompt([user(forged)])
    honest = form.encode_prompt([user("a")])
    for text in control_texts(form):
        token = form.tokenizer.convert_tokens_to_ids(text)
        assert text.isspace() or ids.count(token) == honest.count(token), text


def test_only_the_assistant_may_say_what_the_template_writes(
    formats: dict[str, ChatFormat],
) -> None:
    form = formats["qwen3"]
    think = form.tokenizer.convert_tokens_to_ids("<think>")
    template_writes = form.encode_prompt([user("a")]).count(think)
    assert form.encode_prompt([user("<think>a")]).count(think) == template_writes
    assert think in form.encode_conversation([user("a"), assistant("<think>b</think>c")])[0]


def test_overlapping_control_tokens_cannot_hide_one_another() -> None:
    backend = Tokenizer.from_str(byte_tokenizer().to_str())
    backend.add_special_tokens([AddedToken(text, special=True) for text in ("<<x>", "<x>>", "<e>")])
    form = ChatFormat(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>"))
    ids = form.encode_prompt([user("<<x>><<x>>")])
    assert not {256, 257, 258} & set(ids)
    assert "<<x>><<x>>" in form.decode(ids)


def test_text_that_turns_into_a_control_token_is_refused() -> None:
    backend = byte_tokenizer()
    backend.normalizer = normalizers.NFKC()
    backend.add_special_tokens([AddedToken("<e>", special=True, normalized=True)])
    form = ChatFormat(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>"))
    with pytest.raises(BadInputError, match="control token"):
        form.encode_prompt([user("＜e＞")])


def test_a_template_that_drops_old_reasoning_marks_the_last_turn_only(
    formats: dict[str, ChatFormat],
) -> None:
    form = formats["qwen3"]
    ids, is_response_token = form.encode_conversation(TALK)
    marked = [token for token, flag in zip(ids, is_response_token, strict=True) if flag]
    assert written(form, marked) == "ran<|im_end|>"


def test_a_reply_that_the_template_rewrites_is_marked_as_it_was_generated() -> None:
    """Reasoning models: the prompt opens a thought that the template drops afterwards."""
    tokenizer = plain_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ':' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:(thought)' }}{% endif %}"
    )
    form = ChatFormat(tokenizer)
    ids, is_response_token = form.encode_conversation(TALK)
    assert bracketed(form, ids, is_response_token) == (
        "user:the cat?<e>assistant:sat on the mat<e>user:and the dog?<e>assistant:(thought)[ran<e>]"
    )


def test_a_system_prompt_goes_before_the_first_user_text_where_there_is_no_role_for_it(
    formats: dict[str, ChatFormat],
) -> None:
    form = formats["mistral"]
    ids = form.encode_prompt([Said("system", "be kind"), user("hello")])
    assert written(form, ids) == "<s>[INST] be kind\n\nhello[/INST]"


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("gemma3", WRITTEN["gemma3"]),
        ("smollm", WRITTEN["smollm"]),
        ("llama", WRITTEN["llama"].replace("Today Date: 26 Jul 2024\n\n", "")),
        (
            "mistral",
            "<s>be kind\n\nUser:\nthe cat?\n\nAssistant:\n[sat on the mat</s>]\n\n"
            "User:\nand the dog?\n\nAssistant:\n[ran</s>]\n\n",
        ),
    ],
)
def test_a_tokenizer_without_template_gets_one_by_its_markers(
    tmp_path: Path, family: str, expected: str
) -> None:
    form = tiny_format(tmp_path, family, chat_template=False)
    ids, is_response_token = form.encode_conversation([Said("system", "be kind"), *TALK])
    assert bracketed(form, ids, is_response_token) == expected


def test_a_template_that_writes_no_end_gets_eos_after_the_last_reply() -> None:
    tokenizer = plain_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    form = ChatFormat(tokenizer)
    ids, is_response_token = form.encode_conversation(TALK)
    assert bracketed(form, ids, is_response_token) == (
        "user: the cat?\nassistant: sat on the mat\nuser: and the dog?\nassistant:[ran<e>]"
    )


def test_a_template_that_ends_the_last_turn_alone_marks_the_last_turn_alone() -> None:
    tokenizer = plain_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ':' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% else %}{{ eos_token }}{% endif %}"
    )
    form = ChatFormat(tokenizer)
    ids, is_response_token = form.encode_conversation(TALK)
    assert bracketed(form, ids, is_response_token) == (
        "user:the cat?\nassistant:sat on the mat\nuser:and the dog?\nassistant:[ran\n<e>]"
    )


def test_tokenizers_that_begin_with_a_space_do_not_double_it() -> None:
    """Llama 2 style: '▁' before every encoded text, and '[/INST]' is plain text."""
    tokenizer = plain_tokenizer(prefix_space=True)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ 'I ' + m.content + ' /I' }}"
        "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
    )
    form = ChatFormat(tokenizer)
    ids, is_response_token = form.encode_conversation([user("a"), assistant("b")])
    reply = [token for token, flag in zip(ids, is_response_token, strict=True) if flag]
    assert tokenizer.convert_ids_to_tokens(reply) == ["▁", "b", "<e>"]
    joint = tokenizer.encode("I a /I b<e>", add_special_tokens=False)
    assert ids == joint


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no messages"),
        ([Said("tool", "a")], "Role 'tool'"),
        ([user("a"), Said("system", "b")], "first of the conversation"),
        ([user("a \ud800")], "lone surrogate"),
    ],
)
def test_bad_conversations_are_refused_with_the_reason(
    formats: dict[str, ChatFormat], messages: list[Said], reason: str
) -> None:
    for form in formats.values():
        with pytest.raises(BadInputError, match=reason):
            form.encode_prompt(messages)


def test_an_order_that_the_template_refuses_is_the_callers_mistake(
    formats: dict[str, ChatFormat],
) -> None:
    with pytest.raises(BadInputError, match="must alternate"):
        formats["gemma3"].encode_prompt([user("a"), user("b")])


def test_a_model_without_any_end_token_is_refused() -> None:
    with pytest.raises(ModelError, match="no end-of-turn token"):
        ChatFormat(PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer()))


def test_tomorrow_the_same_conversation_has_the_same_tokens() -> None:
    tokenizer = plain_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}{{ messages[0].content + eos_token }}"
    ids = ChatFormat(tokenizer).encode_prompt([user("a")])
    assert written(ChatFormat(tokenizer), ids) == "26 Jul 2024a<e>"


def test_threads_can_encode_at_once(formats: dict[str, ChatFormat]) -> None:
    form = formats["gemma3"]
    expected = form.encode_conversation(TALK)
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda _: form.encode_conversation(TALK), range(64))
        assert all(result == expected for result in results)


@given(st.text(max_size=40))
def test_any_text_goes_through_prompt_and_reply_unchanged(text: str) -> None:
    form = ChatFormat(plain_tokenizer())
    reply = form.encode_reply(text)
    assert reply[-1] == form.end_token_id
    assert form.decode(reply) == text


@given(st.lists(st.integers(0, 255), max_size=24))
def test_streamed_text_is_what_python_decodes_and_never_takes_back_a_piece(
    values: list[int],
) -> None:
    tokenizer = plain_tokenizer()
    stream = IncrementalDetokenizer(tokenizer)
    alphabet = byte_alphabet()
    pieces = [stream.add(tokenizer.convert_tokens_to_ids(alphabet[value])) for value in values]
    assert "".join(pieces) + stream.finish() == bytes(values).decode("utf-8", errors="replace")


def test_no_piece_ends_within_a_character() -> None:
    tokenizer = plain_tokenizer()
    stream = IncrementalDetokenizer(tokenizer)
    ids = tokenizer.encode("a€👍🏽", add_special_tokens=False)
    assert len(ids) == 12
    assert [stream.add(token) for token in ids] == [
        "a", "", "", "€", "", "", "", "👍", "", "", "", "🏽",
    ]  # fmt: skip


@given(st.sampled_from(FAMILIES), st.text())
def test_bytes_of_tokens_joined_are_the_text(
    formats: dict[str, ChatFormat], family: str, text: str
) -> None:
    form = formats[family]
    ids = form.encode_reply(text)[:-1]
    assert b"".join(map(form.token_bytes, ids)).decode().strip() == text.strip()


def test_bytes_of_byte_fallback_tokens_are_those_of_the_text() -> None:
    vocabulary = {"<0xE2>": 0, "<0x0A>": 1, "▁the": 2, "é": 3, "▁": 4}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.add_special_tokens([AddedToken("<e>", special=True)])
    form = ChatFormat(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>"))
    found = [form.token_bytes(token) for token in range(7)]
    assert found == [b"\xe2", b"\n", b" the", "é".encode(), b" ", b"<e>", b""]


def test_special_tokens_have_no_text(formats: dict[str, ChatFormat]) -> None:
    form = formats["gemma3"]
    ids = form.encode_reply("the <end_of_turn> cat")
    assert form.decode(ids) == "the <end_of_turn> cat"


def test_byte_fallback_tokenizers_keep_the_characters_before_a_broken_one() -> None:
    byte_tokens = {f"<0x{value:02X}>": value for value in range(256)}
    vocabulary = {**byte_tokens, "<unk>": 256, "a": 257}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    stream = IncrementalDetokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
    ids = [*"€".encode(), 0xE2, 257]
    assert [stream.add(token) for token in ids] == ["", "", "€", "", "\ufffda"]
    assert stream.finish() == ""


def byte_alphabet() -> list[str]:
    """The characters that byte-level tokenizers write for bytes 0 to 255 (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = iter(range(256, 512))
    return [chr(value if value in printable else next(rest)) for value in range(256)]


def byte_tokenizer() -> Tokenizer:
    backend = Tokenizer(models.BPE({char: i for i, char in enumerate(byte_alphabet())}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def plain_tokenizer(*, prefix_space: bool = False) -> Any:
    if prefix_space:
        characters = [*map(chr, range(33, 127)), "▁", "\n"]
        backend = Tokenizer(models.BPE({char: i for i, char in enumerate(characters)}, []))
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    else:
        backend = byte_tokenizer()
    backend.add_special_tokens([AddedToken("<e>", special=True, normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>")
