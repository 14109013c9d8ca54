from __future__ import annotations

import csv
import json
import subprocess
import sys
from io import BytesIO, StringIO

import pytest

from finetuning.formats import FileRefusedError, check_example, detect, list_row_formats
from tests.finetuning.formats.reading import chat, read, to_lines

TURNS = chat("Hi", "Yo")["messages"]
ROWS = {
    "chat_messages": chat("Hi", "Yo"),
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]},
    "openai_preference": {
        "input": {"messages": TURNS[:1]},
        "preferred_output": TURNS[1:],
        "non_preferred_output": [{"role": "assistant", "content": "No"}],
    },
    "preference": {"prompt": "Hi", "chosen": "Yo", "rejected": "No"},
    "kto": {"prompt": "Hi", "completion": "Yo", "label": "false"},
    "prompt_completion": {"prompt": "Hi", "completion": "Yo"},
    "alpaca": {"instruction": "Hi", "input": "", "output": "Yo"},
    "classification": {"text": "Fine", "label": "pos"},
    "text": {"text": "Once upon a time"},
}


def test_every_format_has_a_row_here():
    assert set(ROWS) == {row_format.name for row_format in list_row_formats()}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("container", ["jsonl", "json"])
def test_a_format_is_found_by_its_own_rows(name, container):
    rows = [ROWS[name]] * 3
    data = to_lines(*rows) if container == "jsonl" else json.dumps(rows, indent=1).encode()
    found = detect(BytesIO(data))
    assert (found.layout.container, found.layout.format_name) == (container, name)
    assert found.confidence >= 0.8 and "3 of the first 3 rows" in found.reason
    assert not found.layout.columns
    assert all(result.example for result in read(data, found.layout))


@pytest.mark.parametrize("name", ["preference", "kto", "prompt_completion", "alpaca", "classification"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_a_table_is_found_with_its_delimiter(name, delimiter):
    text = StringIO()
    writer = csv.DictWriter(text, list(ROWS[name]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows([{**ROWS[name], next(iter(ROWS[name])): 'Hi, "you"; a|b\nc'}] * 5)
    data = text.getvalue().encode()
    found = detect(BytesIO(data))
    assert (found.layout.container, found.layout.delimiter) == ("csv", delimiter)
    assert found.layout.format_name == name
    assert [bool(result.example) for result in read(data, found.layout)] == [True] * 5


def test_columns_under_other_names_are_found_and_said():
    found = detect(BytesIO(b"Review,Sentiment,conversation_id\nFine,pos,7\n"))
    assert found.layout.format_name == "classification"
    assert found.layout.columns == {"text": "Review", "label": "Sentiment", "group": "conversation_id"}
    assert found.confidence < 0.8 and '"Review" is read as text' in found.reason
    assert [result.group for result in read(b"Review,Sentiment,conversation_id\nFine,pos,7\n", found.layout)] == ["7"]


def test_unknown_columns_are_left_to_a_person():
    found = detect(BytesIO(b"foo,bar\n1,2\n"))
    assert (found.layout.format_name, found.confidence) == ("", 0.0)
    assert found.columns == ("foo", "bar") and "choose" in found.reason


def test_star_ratings_are_not_taken_for_thumbs():
    found = detect(BytesIO(to_lines({"prompt": "Hi", "completion": "Yo", "rating": 1})))
    assert found.layout.format_name == "prompt_completion"


def test_some_broken_rows_do_not_hide_the_format():
    data = b'{"messages": [\n' + to_lines(*[chat("Hi", "Yo")] * 5) + b"not json\n"
    assert detect(BytesIO(data)).layout.format_name == "chat_messages"


def test_mixed_rows_lower_the_confidence_and_name_the_alternative():
    data = to_lines(*[ROWS["preference"]] * 6, *[ROWS["prompt_completion"]] * 4)
    found = detect(BytesIO(data))
    assert found.layout.format_name == "preference" and found.confidence == 0.6
    assert [match.format_name for match in found.alternatives] == ["prompt_completion"]


def test_plain_lines_are_text():
    found = detect(BytesIO(b"One sentence.\nAnother one, with a comma.\nA third.\n"))
    assert (found.layout.container, found.layout.format_name) == ("lines", "text")


def test_detection_leaves_a_stream_at_its_start():
    stream = BytesIO(b"skipped" + to_lines(chat("Hi", "Yo")))
    stream.seek(7)
    assert detect(stream).layout.container == "jsonl" and stream.tell() == 7


def test_a_stream_that_cannot_be_rewound_is_refused():
    stream = BytesIO(b"{}")
    stream.seekable = lambda: False
    with pytest.raises(FileRefusedError):
        detect(stream)


def test_what_is_exported_is_found_again():
    for name, row in ROWS.items():
        (result,) = read(to_lines(row))
        example = result.example
        (again,) = read(to_lines(example.to_dict()))
        assert again.example == example, name
        assert check_example(example.kind, example.to_dict()) == (example, ())


def test_heavy_packages_are_not_imported():
    heavy = "django", "torch", "transformers", "pandas", "datasets", "pyarrow", "numpy"
    program = "import sys, finetuning.formats as f, finetuning.scanning; f.list_row_formats(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "finetuning.formats" in loaded and not set(heavy) & set(loaded)
