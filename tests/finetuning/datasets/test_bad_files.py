"""Files as people really have them: each ends in the right state, with a sentence, and with nothing half done."""

from __future__ import annotations

import gzip
import io
import json
import zipfile

import pytest

from chat.errors import InvalidError
from finetuning import datasets
from finetuning.models import Dataset, DatasetImport, Example
from tests.finetuning.datasets.support import chat_lines, chat_row, read_upload, upload, write_lines

Status = DatasetImport.Status
LONE = "lone_surrogate"


def joined(lines: list[str], end: str = "\n") -> bytes:
    return "".join(line + end for line in lines).encode()


def only_problem(source_import: DatasetImport) -> tuple[int, str, str]:
    problem = source_import.problems.get()
    return problem.line, problem.code, problem.message


def test_broken_json_on_line_4012_is_named_and_the_rest_is_read(dataset):
    lines = chat_lines(5000)
    lines[4011] = lines[4011][:-2]
    source_import = read_upload(dataset, joined(lines))
    assert source_import.status == Status.SUCCEEDED
    assert (source_import.rows_read, source_import.rows_added, source_import.rows_refused) == (5000, 4999, 1)
    line, code, message = only_problem(source_import)
    assert (line, code) == (4012, "broken_json")
    assert "broken JSON" in message


@pytest.mark.parametrize("content", [joined(chat_lines(30), "\r\n"), b"\xef\xbb\xbf" + joined(chat_lines(30))])
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(dataset, content):
    source_import = read_upload(dataset, content)
    assert (source_import.status, source_import.rows_added, source_import.codes) == (Status.SUCCEEDED, 30, {})
    assert Example.objects.order_by("pk").first().content == chat_row(1)


def test_utf16_with_a_byte_order_mark_is_read(dataset):
    source_import = read_upload(dataset, "\n".join(chat_lines(20)).encode("utf-16"))
    assert (source_import.status, source_import.rows_added) == (Status.SUCCEEDED, 20)


def test_line_in_another_encoding_is_refused_alone(dataset):
    lines = [json.dumps(chat_row(number, f"Grün {number}"), ensure_ascii=False).encode() for number in range(30)]
    lines[9] = lines[9].replace("ü".encode(), "ü".encode("cp1252"))
    source_import = read_upload(dataset, b"\n".join(lines))
    assert source_import.rows_added == 29
    assert only_problem(source_import)[:2] == (10, "bad_encoding")


def test_lines_of_two_encodings_are_each_read_in_their_own(dataset):
    """Most are not UTF-8, so the file is taken for Windows-1252; the others must not become gibberish."""
    texts = [json.dumps(chat_row(number, f"Grün {number}"), ensure_ascii=False) for number in range(30)]
    lines = [text.encode("utf-8" if number % 3 == 0 else "cp1252") for number, text in enumerate(texts)]
    source_import = read_upload(dataset, b"\n".join(lines))
    assert (source_import.rows_added, source_import.codes) == (30, {})
    answers = [row.content["messages"][1]["content"] for row in Example.objects.order_by("line")]
    assert answers == [f"Grün {number}" for number in range(30)]


def test_single_line_of_200_megabytes_is_passed_over(dataset, tmp_path):
    path = tmp_path / "long.jsonl"
    with path.open("wb") as stream:
        stream.write(joined(chat_lines(10)))
        for _ in range(200):
            stream.write(b"x" * 1024 * 1024)
        stream.write(b"\n" + joined(chat_lines(10, start=11)))
    source_import = datasets.import_file(dataset, path)
    assert (source_import.status, source_import.rows_added) == (Status.SUCCEEDED, 20)
    line, code, message = only_problem(source_import)
    assert (line, code) == (11, "row_too_long")
    assert "was not read" in message


def test_file_of_which_no_row_can_be_read_is_refused_with_the_reason(dataset):
    """Nobody could say which column is what: there are none."""
    source_import = read_upload(dataset, b'{"text": "' + b"x" * 20 * 1024 * 1024 + b'"}')
    assert (source_import.status, source_import.error_code) == (Status.FAILED, "broken_file")
    assert "Line 1: The line is longer than" in source_import.error_message


def packed(kind: str) -> bytes:
    content = b"\0" * 50_000_000
    if kind == "gzip":
        return gzip.compress(content)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.jsonl", content)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["gzip", "zip"])
def test_bomb_is_refused_unread(dataset, tmp_path, kind):
    (tmp_path / "rows.jsonl").write_bytes(packed(kind))
    source_import = datasets.import_file(dataset, tmp_path / "rows.jsonl")
    assert (source_import.status, source_import.error_code) == (Status.FAILED, "compressed")
    assert "Unpack it" in source_import.error_message
    with pytest.raises(InvalidError, match="packed"):
        upload(dataset, packed(kind))


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "  "}]}, "empty_turn"),
        ({"messages": [{"role": "wizard", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}, "unknown_role"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "no_assistant_turn"),
        (
            {"messages": [{"role": "user", "content": "\ud800"}, {"role": "assistant", "content": "Ho"}]},
            "lone_surrogate",
        ),
        ({"messages": [{"role": "user", "content": "a\0b"}, {"role": "assistant", "content": "Ho"}]}, "nul"),
        ({"messages": []}, "not_messages"),
    ],
)
def test_row_that_cannot_be_trained_on_is_refused_alone(dataset, row, code):
    source_import = read_upload(dataset, joined([*chat_lines(20), json.dumps(row)]))
    assert (source_import.status, source_import.rows_added) == (Status.SUCCEEDED, 20)
    assert only_problem(source_import)[:2] == (21, code)


def test_missing_label_is_refused_alone(dataset):
    source_import = read_upload(dataset, b"text,label\nGood,pos\nBad,neg\nWhat?,\n", name="rows.csv")
    assert (source_import.rows_added, source_import.codes) == (2, {"missing_label": 1})
    assert only_problem(source_import)[0] == 4


def test_labels_of_one_class_are_warned_of(dataset):
    rows = "".join(f"Sentence {number},good\n" for number in range(30))
    read_upload(dataset, b"text,label\n" + rows.encode(), name="rows.csv")
    assert datasets.describe_dataset(dataset)["warnings"] == [
        "All rows have the same label, so there is nothing to tell apart."
    ]
    version = datasets.freeze_now(Dataset.objects.get(), user=None)
    assert [warning["code"] for warning in version.report["warnings"]] == ["one_class"]


def test_pair_with_equal_sides_is_refused_alone(dataset):
    pairs = [{"prompt": "Hi", "chosen": "Hello", "rejected": "Go"}, {"prompt": "Hi", "chosen": "Ho", "rejected": "Ho "}]
    source_import = read_upload(dataset, joined([json.dumps(pair) for pair in pairs]))
    assert (source_import.rows_added, source_import.codes) == (1, {"equal_sides": 1})


def test_kind_that_the_dataset_does_not_hold_is_refused_as_a_whole(dataset):
    read_upload(dataset, joined(chat_lines(20)))
    pairs = [{"prompt": f"Hi {number}", "chosen": "Hello", "rejected": "Go"} for number in range(5)]
    source_import = read_upload(dataset, joined([json.dumps(pair) for pair in pairs]))
    assert (source_import.status, source_import.error_code) == (Status.FAILED, "wrong_kind")
    assert "Put them into another dataset" in source_import.error_message
    assert Example.objects.count() == 20


@pytest.mark.parametrize("content", [b" \n\n  \n", b"\xef\xbb\xbf"])
def test_file_without_rows_has_failed(dataset, content):
    source_import = read_upload(dataset, content)
    assert (source_import.status, source_import.error_code) == (Status.FAILED, "empty_file")


def test_file_of_which_no_row_can_be_used_has_failed(dataset):
    bad = json.dumps({"messages": [{"role": "user", "content": "Hi"}]})
    source_import = read_upload(dataset, joined([bad] * 30))
    assert (source_import.status, source_import.error_code) == (Status.FAILED, "no_rows")
    assert source_import.codes == {"no_assistant_turn": 30}
    assert "None of the 30 rows can be used" in source_import.error_message


def test_of_each_problem_the_first_200_are_kept_and_all_are_counted(dataset):
    bad = json.dumps({"messages": [{"role": "user", "content": "Hi"}]})
    source_import = read_upload(dataset, joined([*chat_lines(50), *[bad] * 500, "{"]))
    assert source_import.codes == {"no_assistant_turn": 500, "broken_json": 1}
    assert datasets.count_problems(source_import, code="no_assistant_turn") == 200
    assert datasets.count_problems(source_import) == 201
    page = datasets.list_problems(source_import, limit=150)
    rest = datasets.list_problems(source_import, limit=150, cursor=page.next_cursor)
    assert [problem.line for problem in (*page.items, *rest.items)] == [*range(51, 251), 551]
    assert rest.next_cursor is None


def test_file_that_no_format_fits_waits_for_its_columns_and_is_then_read(dataset):
    lines = [json.dumps({"said": f"Sentence {number}", "mood": "good", "n": number}) for number in range(30)]
    source_import = read_upload(dataset, joined(lines))
    assert source_import.status == Status.WAITING
    assert source_import.layout["seen_columns"] == ["said", "mood", "n"]
    assert source_import.layout["sample"][0] == {"said": "Sentence 0", "mood": "good", "n": "0"}
    with pytest.raises(InvalidError, match="Say which column holds “text”"):
        datasets.set_layout(source_import, format_name="classification", columns={"label": "mood"})
    with pytest.raises(InvalidError, match="no column “feeling”"):
        datasets.set_layout(source_import, format_name="classification", columns={"text": "said", "label": "feeling"})
    with pytest.raises(InvalidError, match="no format named"):
        datasets.set_layout(source_import, format_name="poems", columns={})
    datasets.set_layout(source_import, format_name="classification", columns={"text": "said", "label": "mood"})
    datasets.run_import(source_import.pk)
    source_import.refresh_from_db()
    assert (source_import.status, source_import.rows_added) == (Status.SUCCEEDED, 30)
    assert "sample" not in source_import.layout


def test_file_for_a_dataset_of_one_kind_is_read_as_that_kind(db):
    dataset = datasets.create_dataset("Texts", user=None, kind="text")
    source_import = read_upload(dataset, b"text,label\nOne thing,good\nAnother,bad\n", name="rows.csv")
    # Among other columns a text alone is a guess, so a person is asked.
    assert source_import.status == Status.WAITING
    datasets.set_layout(source_import, format_name="text", columns={})
    datasets.run_import(source_import.pk)
    assert [row.content for row in Example.objects.order_by("pk")] == [{"text": "One thing"}, {"text": "Another"}]


def test_file_that_is_gone_has_failed(dataset, tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", chat_lines(20))
    source_import = DatasetImport.objects.create(dataset=dataset, status=Status.QUEUED, path=str(path), size=10)
    path.unlink()
    datasets.run_import(source_import.pk)
    source_import.refresh_from_db()
    assert (source_import.status, source_import.error_code) == (Status.FAILED, "unreadable")
