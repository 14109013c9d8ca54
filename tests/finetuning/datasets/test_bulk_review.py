"""Decisions about many rows: few at once, many by a worker, and never about rows that nobody has seen."""

from __future__ import annotations

import json
from base64 import b64decode

import pytest
from kombu.exceptions import OperationalError

from chat.errors import BusyError, InvalidError
from config.celery import app
from config.valkey import get_valkey_sync
from finetuning import datasets, tasks
from finetuning.datasets import bulk_review
from finetuning.datasets.bulk_review import decide_about_all
from finetuning.formats import check_example
from finetuning.models import Example

PENDING = {"status": "pending", "query": "", "finding": "", "origin": ""}


@pytest.fixture
def lines(admin_user):
    dataset = datasets.create_dataset("Lines", user=admin_user, kind="text")
    add(dataset, 6)
    return dataset


def add(dataset, count: int) -> None:
    start = dataset.examples.count()
    drafts = [datasets.Draft(check_example("text", {"text": f"Line {start + n}"})[0]) for n in range(count)]
    datasets.add_drafts(dataset, drafts, source_import=None, is_approved=False)


def waiting() -> list[dict]:
    """The tasks that wait for a worker, with their arguments."""
    messages = [json.loads(text) for text in get_valkey_sync().lrange("default", 0, -1)]
    bodies = [json.loads(b64decode(message["body"])) for message in messages]
    return [
        {"task": message["headers"]["task"], "args": args, "kwargs": kwargs}
        for message, (args, kwargs, _) in zip(messages, bodies, strict=True)
    ]


def approved(dataset) -> int:
    return dataset.examples.filter(status=Example.Status.APPROVED).count()


def test_few_rows_are_decided_at_once(lines, admin_user):
    last = lines.examples.last().pk
    add(lines, 1)
    answer = decide_about_all(lines, action="approve", filters=PENDING, up_to=last, user=admin_user)
    assert answer == (6, True)
    assert approved(lines) == 6
    assert waiting() == []


def test_many_rows_are_left_to_a_worker(lines, admin_user, monkeypatch):
    monkeypatch.setattr(bulk_review, "AT_ONCE", 5)
    last = lines.examples.last().pk
    answer = decide_about_all(lines, action="approve", filters=PENDING, up_to=last, user=admin_user)
    assert answer == (6, False)
    assert approved(lines) == 0
    (sent,) = waiting()
    assert sent["task"] == tasks.decide_about_rows.name
    add(lines, 1)
    for _ in range(2):  # a message that is delivered twice
        tasks.decide_about_rows(*sent["args"], **sent["kwargs"])
        assert approved(lines) == 6
    assert {row.reviewed_by for row in lines.examples.filter(status=Example.Status.APPROVED)} == {admin_user}


def test_worker_leaves_deleted_datasets_and_locked_out_people_alone(lines, admin_user):
    arguments = {"action": "reject", "filters": PENDING, "up_to": lines.examples.last().pk}
    admin_user.is_active = False
    admin_user.save(update_fields=["is_active"])
    assert bulk_review.decide_now(lines.pk, **arguments, user_id=admin_user.pk) == 0
    admin_user.is_active = True
    admin_user.save(update_fields=["is_active"])
    datasets.delete_dataset(lines)
    assert bulk_review.decide_now(lines.pk, **arguments, user_id=admin_user.pk) == 0
    assert not Example.objects.exclude(status=Example.Status.PENDING).exists()


def test_refusals_change_nothing(lines, admin_user, monkeypatch):
    with pytest.raises(InvalidError):
        decide_about_all(lines, action="eat", filters=PENDING, up_to=10**6, user=admin_user)
    monkeypatch.setattr(bulk_review, "AT_ONCE", 1)

    def fail(*arguments: object, **options: object) -> None:
        raise OperationalError

    monkeypatch.setattr(app, "send_task", fail)
    with pytest.raises(BusyError):
        decide_about_all(lines, action="approve", filters=PENDING, up_to=10**6, user=admin_user)
    assert approved(lines) == 0
