"""What people decide about rows, and that it stays known who did."""

from __future__ import annotations

import pytest

from chat.errors import InvalidError
from finetuning import datasets
from finetuning.datasets import polite
from finetuning.formats import ChatExample, ClassificationExample, KtoExample, Message
from finetuning.models import DatasetVersion, Example
from tests.finetuning.datasets.support import chat_draft, chat_row, fill, labelled_draft


@pytest.fixture
def rows(dataset):
    fill(dataset, [chat_draft(number) for number in range(1, 6)], is_approved=False)
    return Example.objects.order_by("pk")


def say(answer: str, *, question: str = "Question 1?") -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.mark.parametrize(
    ("act", "status"), [(datasets.approve, "approved"), (datasets.reject, "rejected"), (datasets.reopen, "pending")]
)
def test_decision_is_kept_with_who_made_it(rows, alice, act, status):
    datasets.approve(rows.filter(line=1), user=alice)
    Example.objects.filter(line=2).update(status="rejected")
    changed = act(rows.filter(line__in=[1, 2]), user=alice)
    assert changed == (2 if status == "pending" else 1)
    decided = rows.get(line=1) if status != "approved" else rows.get(line=2)
    assert (decided.status, decided.reviewed_by) == (status, alice)
    assert decided.reviewed_at is not None
    assert set(rows.filter(line__gt=2).values_list("status", "reviewed_by")) == {("pending", None)}


def test_decision_reaches_more_rows_than_fit_a_batch(dataset, alice):
    fill(dataset, [chat_draft(number) for number in range(1000)], is_approved=False)
    assert datasets.approve(Example.objects.filter(dataset=dataset, status="pending"), user=alice) == 1000
    assert Example.objects.filter(status="approved", reviewed_by=alice).count() == 1000


def test_decision_makes_the_dataset_newer(dataset, rows, alice):
    before = dataset.updated_at
    datasets.approve(rows, user=alice)
    dataset.refresh_from_db()
    assert dataset.updated_at > before


@pytest.mark.parametrize(
    "act",
    [
        lambda rows: datasets.reject(rows, user=None),
        lambda rows: datasets.mask_examples(rows, user=None),
        datasets.delete_examples,
    ],
    ids=["reject", "mask", "delete"],
)
def test_version_is_out_of_date_from_the_first_batch_on(dataset, monkeypatch, act):
    """A training that is started while many rows are decided about must not take the version before."""
    talks = [ChatExample((Message("user", "Who?"), Message("assistant", f"{n}@example.com"))) for n in range(20)]
    version = datasets.freeze_now(fill(dataset, map(datasets.Draft, talks)), user=None)
    found: list[bool] = []
    real = polite.Pace.ended

    def ended(pace: polite.Pace) -> None:
        found.append(datasets.is_up_to_date(DatasetVersion.objects.select_related("dataset").get(pk=version.pk)))
        real(pace)

    monkeypatch.setattr(polite.Pace, "ended", ended)
    act(Example.objects.filter(dataset=dataset))
    assert found == [False]


def test_edit_keeps_the_first_content_once(rows, alice, bob):
    row = datasets.edit_example(rows[0], say("Better, says jane@example.com."), user=alice)
    assert row.original == chat_row(1)
    assert row.findings == {"email": 1}
    assert row.length == len("Question 1?") + len("Better, says jane@example.com.")
    again = datasets.edit_example(row, say("Best."), user=bob)
    again.refresh_from_db()
    assert (again.content, again.original, again.reviewed_by) == (say("Best."), chat_row(1), bob)
    assert again.content_hash == ChatExample.from_dict(say("Best.")).content_hash()
    assert again.findings == {}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (say("  "), "is empty"),
        ({"messages": []}, "a list of messages is expected"),
        ({"text": "A text"}, "is missing"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "unknown role"),
    ],
)
def test_edit_is_checked_as_an_import_is(rows, alice, content, sentence):
    with pytest.raises(InvalidError, match=sentence):
        datasets.edit_example(rows[0], content, user=alice)
    assert rows[0].content == chat_row(1)


def test_edit_that_repeats_another_row_is_refused(rows, alice):
    with pytest.raises(InvalidError, match="Another row of this dataset says exactly this"):
        datasets.edit_example(rows[0], chat_row(2), user=alice)


def test_relabel_changes_content_and_label(dataset, alice):
    fill(dataset, [labelled_draft(number, "good") for number in range(3)])
    assert datasets.relabel(Example.objects.filter(line__lt=2), "  bad ", user=alice) == 2
    row = Example.objects.get(line=0)
    assert (row.label, row.content) == ("bad", {"text": "Sentence 0.", "label": "bad"})
    assert row.content_hash == ClassificationExample("Sentence 0.", "bad").content_hash()
    assert row.original == {"text": "Sentence 0.", "label": "good"}
    assert datasets.relabel(Example.objects.all(), "bad", user=alice) == 1, "two have it already"


def test_relabel_to_what_another_row_says_leaves_one_of_them(dataset, alice):
    text = "The same text."
    fill(dataset, [datasets.Draft(ClassificationExample(text, label)) for label in ("good", "bad")])
    assert datasets.relabel(Example.objects.filter(label="good"), "bad", user=alice) == 1
    assert [row.label for row in Example.objects.all()] == ["bad"]


def test_rating_is_turned_round(dataset, alice):
    example = KtoExample((Message("user", "Hi"),), (Message("assistant", "Ho"),), True)
    fill(dataset, [datasets.Draft(example)])
    datasets.relabel(Example.objects.all(), "undesirable", user=alice)
    row = Example.objects.get()
    assert (row.label, row.content["label"]) == ("undesirable", False)
    with pytest.raises(InvalidError, match="neither good nor bad"):
        datasets.relabel(Example.objects.all(), "purple", user=alice)


@pytest.mark.parametrize("label", ["", " ", "x" * 201])
def test_label_that_cannot_be_is_refused(dataset, alice, label):
    fill(dataset, [labelled_draft(1, "good")])
    with pytest.raises(InvalidError):
        datasets.relabel(Example.objects.all(), label, user=alice)
    assert Example.objects.get().label == "good"


def test_conversations_have_no_label(rows, alice):
    with pytest.raises(InvalidError, match="have a label"):
        datasets.relabel(rows, "good", user=alice)


def test_mask_takes_personal_data_out_of_the_content(dataset, alice):
    talk = ChatExample((Message("user", "Who?"), Message("assistant", "jane@example.com or 192.0.2.7")))
    fill(dataset, [datasets.Draft(talk, line=1), chat_draft(2)])
    assert datasets.mask_examples(Example.objects.all(), user=alice) == 1
    row = Example.objects.get(line=1)
    assert row.content["messages"][1]["content"] == "[EMAIL] or [IP]"
    assert (row.findings, row.reviewed_by, row.original) == ({}, alice, talk.to_dict())
    assert Example.objects.get(line=2).original is None


def test_rows_equal_once_they_are_masked_are_one_row(dataset, alice):
    talks = [
        ChatExample((Message("user", "Who?"), Message("assistant", f"{name}@example.com")))
        for name in ("jane", "john", "jack")
    ]
    fill(dataset, [datasets.Draft(talk) for talk in talks])
    datasets.mask_examples(Example.objects.all(), user=alice)
    assert [row.content["messages"][1]["content"] for row in Example.objects.all()] == ["[EMAIL]"]


def test_deleted_rows_are_gone(rows, dataset):
    before = dataset.updated_at
    assert datasets.delete_examples(rows.filter(line__lte=2)) == 2
    assert list(rows.values_list("line", flat=True)) == [3, 4, 5]
    dataset.refresh_from_db()
    assert dataset.updated_at > before
