"""What holds for every input: nothing raises, nothing is lost, a cut costs the end only."""

from __future__ import annotations

import csv
import json
from io import BytesIO, StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.formats import (
    EXAMPLE_TYPES,
    ChatExample,
    ClassificationExample,
    FileRefusedError,
    KtoExample,
    Layout,
    Message,
    PreferenceExample,
    Severity,
    TextExample,
    detect,
    example_from_dict,
    example_texts,
    list_row_formats,
    parse,
    replace_texts,
)
from finetuning.formats.registry import CANONICAL_FORMATS
from tests.finetuning.formats.reading import SMALL, read

untimed = settings(deadline=None)
FORMATS = [row_format.name for row_format in list_row_formats()]
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1).filter(str.strip)
labels = texts.map(str.strip).map(lambda label: label[:50].strip())


@st.composite
def turns(draw) -> tuple[Message, ...]:
    messages = [Message("system", draw(texts))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        messages += [Message("user", draw(texts)), Message("assistant", draw(texts), draw(st.integers(0, 1)))]
    return (*messages, Message("user", draw(texts)))


answers = texts.map(lambda text: (Message("assistant", text),))
pairs = st.tuples(answers, answers).filter(lambda pair: pair[0][0].content.strip() != pair[1][0].content.strip())
chats = st.builds(lambda prompt, answer: ChatExample(prompt + answer), turns(), answers)
examples = st.one_of(
    chats,
    st.builds(lambda prompt, pair: PreferenceExample(prompt, *pair), turns(), pairs),
    st.builds(KtoExample, turns(), answers, st.booleans()),
    st.builds(ClassificationExample, texts, labels),
    st.builds(TextExample, texts),
)
NAMES = """messages role content weight from value conversations prompt completion chosen rejected label text
instruction input output history system tools preferred_output non_preferred_output tool_calls"""
names = st.sampled_from(NAMES.split())
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | st.text(), inner, max_size=5),
    max_leaves=20,
)
rows = st.dictionaries(names, values, max_size=6)


@untimed
@given(examples)
def test_an_example_survives_its_dict_and_its_file(example):
    data = json.loads(json.dumps(example.to_dict()))
    assert example_from_dict(example.kind, data) == example
    assert EXAMPLE_TYPES[example.kind].from_dict(data).content_hash() == example.content_hash()
    layout = Layout("jsonl", CANONICAL_FORMATS[example.kind])
    (result,) = read(json.dumps(data, ensure_ascii=False).encode() + b"\n", layout)
    assert result.example == example and result.severity is Severity.OK


@untimed
@given(examples, examples)
def test_hashes_are_equal_for_equal_examples_only(left, right):
    assert (left.content_hash() == right.content_hash()) == (left == right and left.kind == right.kind)


def test_a_hash_never_changes():
    example = ChatExample((Message("user", "Hi é"), Message("assistant", "Yo", 0)))
    assert example.content_hash() == "a147869b995660b1b307c9d8c7f2e6a378c82279e6b0a0902447fe62cc16f9ac"


@untimed
@given(examples)
def test_texts_are_replaced_where_they_stood(example):
    texts = example_texts(example)
    assert replace_texts(example, texts) == example
    assert example_texts(replace_texts(example, [text + "!" for text in texts])) == [text + "!" for text in texts]


@pytest.mark.parametrize("name", FORMATS)
@untimed
@given(row=rows)
def test_no_row_makes_a_format_raise(name, row):
    data = json.dumps(row).encode() + b"\n"
    (result,) = read(data, Layout("jsonl", name))
    assert (result.example is None) == (result.severity is Severity.ERROR)
    if result.example:
        result.example.content_hash()
        for text in example_texts(result.example):
            text.encode()


@untimed
@given(st.lists(rows, max_size=4))
def test_no_rows_make_detection_raise(row_list):
    data = b"".join(json.dumps(row).encode() + b"\n" for row in row_list)
    try:
        detect(BytesIO(data))
    except FileRefusedError:
        assert not row_list


noise = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.sampled_from([b'"', b"{", b"}", b"[", b"]", b",", b"\n", b"\r", b"\\", b":", b"a", b"\xff", b"\x00", b"1"])
    ).map(b"".join),
)


@given(noise, st.sampled_from(["jsonl", "json", "csv", "lines"]), st.integers(1, 50))
@settings(max_examples=500, deadline=None)
def test_no_bytes_make_a_reader_raise(data, container, chunk):
    stream = BytesIO(data)
    read_all, stream.read = stream.read, lambda size=-1: read_all(min(chunk, size))
    try:
        results = list(parse(stream, Layout(container, "text"), limits=SMALL))
    except FileRefusedError:
        assert container == "csv"
        return
    lines = [result.line for result in results]
    assert lines == sorted(lines) and all(1 <= line <= data.count(b"\n") + 1 for line in lines)


@untimed
@given(noise)
def test_no_bytes_make_detection_raise(data):
    try:
        layout = detect(BytesIO(data)).layout
    except FileRefusedError as error:
        assert error.code and error.message
        return
    assert layout.container in ("jsonl", "json", "csv", "lines")


@untimed
@given(
    st.lists(st.tuples(texts, labels), min_size=1, max_size=5),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
)
def test_csv_written_by_python_is_read_as_written(pairs, delimiter, end):
    pairs = [(text.replace("\r", " "), label.replace("\r", " ").strip()) for text, label in pairs]
    pairs = [(text, label) for text, label in pairs if text.strip() and label]
    stream = StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "label"), *pairs])
    results = read(stream.getvalue().encode(), Layout("csv", "classification", delimiter=delimiter))
    assert [(result.example.text, result.example.label) for result in results] == pairs


@untimed
@given(st.lists(chats, min_size=1, max_size=6), st.data())
@pytest.mark.parametrize("container", ["jsonl", "json"])
def test_a_file_cut_anywhere_loses_its_end_only(container, written, data):
    dicts = [example.to_dict() for example in written]
    whole = "\n".join(map(json.dumps, dicts)) if container == "jsonl" else json.dumps(dicts, indent=1)
    encoded = whole.encode()
    cut = data.draw(st.integers(0, len(encoded)))
    results = read(encoded[:cut], Layout(container, "chat_messages"))
    found = [result.example for result in results if result.example]
    assert found == written[: len(found)]
    assert sum(result.example is None for result in results) <= 2
    if cut == len(encoded):
        assert found == written
