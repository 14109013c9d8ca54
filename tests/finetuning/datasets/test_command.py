"""`manage.py import_dataset`: ids and the final state on standard output, and an exit status to go by."""

from __future__ import annotations

import re

import pytest
from django.core.management import CommandError, call_command

from finetuning.models import Dataset, DatasetImport, Example
from tests.finetuning.datasets.support import chat_lines, write_lines


def test_file_is_read_into_a_dataset_of_that_name(db, tmp_path, capsys):
    path = write_lines(tmp_path / "rows.jsonl", [*chat_lines(30), "{"])
    call_command("import_dataset", str(path), "--name", "Rivers")
    dataset, source_import = Dataset.objects.get(), DatasetImport.objects.get()
    output = capsys.readouterr().out
    assert f"dataset {dataset.pk}\nimport {source_import.pk}\n" in output
    assert "succeeded: 31 rows read, 30 added, 0 there already, 1 refused" in output
    assert re.search("line 31: The row is broken JSON", output)
    call_command("import_dataset", str(path), "--name", "Rivers", "--review")
    assert Dataset.objects.count() == 1
    assert "0 added, 30 there already" in capsys.readouterr().out


def test_rows_may_wait_for_review(db, tmp_path):
    call_command(
        "import_dataset", str(write_lines(tmp_path / "a.txt", ["One.", "Two."])), "--name", "Texts", "--review"
    )
    assert set(Example.objects.values_list("status", flat=True)) == {"pending"}


@pytest.mark.parametrize(
    ("lines", "arguments", "sentence"),
    [
        (["{"], [], "Line 1: The row is broken JSON"),
        (['{"a": 1}'], [], "choose one and its columns"),
        ([], [], "The file is empty"),
        (["One."], ["--format", "poems"], "no format named"),
    ],
)
def test_failure_has_a_sentence_and_an_exit_status(db, tmp_path, lines, arguments, sentence):
    path = write_lines(tmp_path / "rows.jsonl", lines)
    with pytest.raises(CommandError, match=sentence):
        call_command("import_dataset", str(path), "--name", "Rivers", *arguments)
    assert DatasetImport.objects.get().status == "failed"


def test_file_that_is_not_there_has_a_sentence_and_leaves_no_dataset(db, tmp_path):
    with pytest.raises(CommandError, match="There is no file"):
        call_command("import_dataset", str(tmp_path / "none.jsonl"), "--name", "Rivers")
    assert not Dataset.objects.exists()
