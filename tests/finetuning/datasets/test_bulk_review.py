"""Decisions about many rows: few at once, many by a worker, and never about rows that nobody has seen."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from kombu.exceptions import OperationalError

from chat.errors import BusyError, InvalidError
from config.celery import app
from finetuning import datasets, tasks
from finetuning.datasets import bulk_review
from finetuning.datasets.bulk_review import decide_about_all
from finetuning.formats import check_example
from finetuning.models import Example
from tests.finetuning.datasets.support import waiting

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


def test_worker_asks_whether_the_person_may_still_curate(lines, alice):
    arguments = {"action": "reject", "filters": PENDING, "up_to": lines.examples.last().pk, "user_id": alice.pk}
    curate = Permission.objects.get(codename="curate")
    assert bulk_review.decide_now(lines.pk, **arguments) == 0
    alice.user_permissions.add(curate)
    assert bulk_review.decide_now(lines.pk, **arguments) == 6


@pytest.mark.parametrize("action", ["eat", "delete"])
def test_page_decides_about_all_rows_in_a_few_ways_only(lines, admin_user, action):
    with pytest.raises(InvalidError):
        decide_about_all(lines, action=action, filters=PENDING, up_to=10**6, user=admin_user)
    assert lines.examples.count() == 6


def test_worker_that_cannot_be_told_changes_nothing(lines, admin_user, monkeypatch):
    monkeypatch.setattr(bulk_review, "AT_ONCE", 1)

    def fail(*arguments: object, **options: object) -> None:
        raise OperationalError

    monkeypatch.setattr(app, "send_task", fail)
    with pytest.raises(BusyError):
        decide_about_all(lines, action="approve", filters=PENDING, up_to=10**6, user=admin_user)
    assert approved(lines) == 0
