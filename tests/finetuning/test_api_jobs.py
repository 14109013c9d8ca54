"""`/api/jobs` and `/api/schedules`: what curators do, and what everybody else is told."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from finetuning.jobs.states import Status
from finetuning.models import FineTuningJob, JobEvent, JobMetric
from tests.finetuning.job_rows import make_job

NEW = {"method": "lora_sft", "base": "tiny-chat", "dataset": "Code words"}


@pytest.fixture
def curator(admin_user, client: Client) -> Client:
    client.force_login(admin_user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def send(client: Client, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    return client.generic(
        method, f"/api{path}", data=__import__("json").dumps(body or {}), content_type="application/json"
    )


def test_job_is_made_read_and_cancelled(curator, base, conversations):
    response = send(curator, "POST", "/jobs", {**NEW, "request_key": "k", "hold": True})
    assert response.status_code == 201, response.content
    made = response.json()
    assert (made["status"], made["target"], made["is_held"]) == ("validating_files", "tiny-chat-code-words", True)
    assert send(curator, "POST", "/jobs", {**NEW, "request_key": "k"}).json()["id"] == made["id"]
    assert curator.get(f"/api/jobs/{made['id']}").json() == made
    assert [job["id"] for job in curator.get("/api/jobs").json()["items"]] == [made["id"]]
    assert send(curator, "POST", f"/jobs/{made['id']}/start").json()["is_held"] is False
    assert send(curator, "POST", f"/jobs/{made['id']}/cancel").json()["status"] == "cancelled"
    assert send(curator, "POST", f"/jobs/{made['id']}/resume").json()["status"] == "validating_files"
    assert send(curator, "PATCH", f"/jobs/{made['id']}", {"priority": 7}).json()["priority"] == 7
    send(curator, "POST", f"/jobs/{made['id']}/cancel")
    again = send(curator, "POST", f"/jobs/{made['id']}/retry", {"hyperparameters": {"lora_r": 4}})
    assert (again.status_code, again.json()["retry_of"]) == (201, made["id"])


@pytest.mark.parametrize(
    "body",
    [
        {**NEW, "dataset": "nothing"},
        {**NEW, "dataset": 999},
        {**NEW, "base": "nobody"},
        {**NEW, "hyperparameters": {"lora": 1}},
        {**NEW, "surprise": 1},
        {**NEW, "run_at": "2031-01-01T00:00:00"},
        {"method": "lora_sft"},
    ],
)
def test_wrong_job_is_refused_with_a_sentence(curator, base, conversations, body):
    response = send(curator, "POST", "/jobs", body)
    assert (response.status_code, response.json()["code"]) == (400, "invalid"), response.content
    assert not FineTuningJob.objects.exists()


@pytest.mark.django_db
def test_log_and_figures_are_paged_by_where_one_is(curator, alice):
    job = make_job(alice, Status.RUNNING)
    events = [JobEvent.objects.create(job=job, code=f"c{number}", data={"step": number}) for number in range(3)]
    JobMetric.objects.bulk_create(JobMetric(job=job, step=number, loss=1.0) for number in range(5))
    page = curator.get(f"/api/jobs/{job.pk}/events?after={events[0].pk}&limit=1").json()
    assert [event["code"] for event in page["items"]] == ["c1"]
    assert page["next_after"] == events[1].pk
    page = curator.get(f"/api/jobs/{job.pk}/events?limit=2&cursor={page['next_cursor']}").json()
    assert ([event["code"] for event in page["items"]], page["next_cursor"]) == (["c2"], None)
    page = curator.get(f"/api/jobs/{job.pk}/metrics?limit=2").json()
    page = curator.get(f"/api/jobs/{job.pk}/metrics?limit=2&cursor={page['next_cursor']}").json()
    assert [metric["step"] for metric in page["items"]] == [2, 3]
    assert curator.get(f"/api/jobs/{job.pk}/events?cursor=zzz").status_code == 400
    page = curator.get(f"/api/jobs/{job.pk}/metrics?after=2").json()
    assert ([metric["step"] for metric in page["items"]], page["next_after"]) == ([3, 4], 4)
    assert curator.get(f"/api/jobs/{job.pk}/metrics?after=4").json() == {
        "items": [],
        "next_after": 4,
        "next_cursor": None,
    }
    assert curator.get(f"/api/jobs/{job.pk}/preflight").json() == {"report": None}


@pytest.mark.django_db
def test_jobs_are_listed_by_status_and_page_by_page(curator, alice):
    made = [make_job(alice, Status.QUEUED) for _ in range(3)]
    make_job(alice, Status.FAILED)
    first = curator.get("/api/jobs?status=queued&limit=2").json()
    second = curator.get(f"/api/jobs?status=queued&limit=2&cursor={first['next_cursor']}").json()
    seen = [job["id"] for job in first["items"] + second["items"]]
    assert seen == [str(job.pk) for job in reversed(made)]
    assert second["next_cursor"] is None
    assert curator.get("/api/jobs?status=dreaming").status_code == 400
    assert curator.get("/api/jobs?cursor=xx").status_code == 400


@pytest.mark.django_db
def test_queue_is_paused_and_opened(curator, alice):
    job = make_job(alice, Status.QUEUED)
    assert send(curator, "PUT", "/jobs/queue", {"paused": True}).json()["paused"] is True
    state = curator.get("/api/jobs/queue").json()
    assert (state["paused"], state["waiting"], state["slots"]) == (True, [str(job.pk)], 1)
    assert send(curator, "PUT", "/jobs/queue", {"paused": False}).json()["paused"] is False


def test_schedule_is_made_changed_run_and_deleted(curator, base, conversations):
    new = {**NEW, "name": "Sundays", "cron": "0 2 * * sun", "min_new_examples": 100}
    made = send(curator, "POST", "/schedules", new)
    assert made.status_code == 201, made.content
    path = f"/schedules/{made.json()['id']}"
    assert curator.get(f"/api{path}").json()["next_run_at"] is not None
    ran = send(curator, "POST", f"{path}/run").json()
    assert (ran["job"], ran["outcome"]) == (None, "Skipped: 40 new approved examples, and 100 are asked for.")
    assert send(curator, "PATCH", path, {"min_new_examples": 10}).json()["min_new_examples"] == 10
    assert send(curator, "POST", f"{path}/run").json()["job"]["schedule"] == made.json()["id"]
    assert send(curator, "PATCH", path, {"cron": "never"}).status_code == 400
    assert send(curator, "DELETE", path).status_code == 204
    assert curator.get("/api/schedules").json()["items"] == []
    assert curator.get(f"/api/schedules/{2**70}").status_code == 404


@pytest.mark.django_db
def test_member_is_refused_everywhere_and_a_stranger_sent_away(client, alice):
    job = make_job(alice, Status.QUEUED)
    paths = ["/jobs", f"/jobs/{job.pk}", "/jobs/queue", f"/jobs/{job.pk}/events", "/schedules", "/schedules/1"]
    assert {client.get(f"/api{path}").status_code for path in paths} == {401}
    client.force_login(alice, backend="django.contrib.auth.backends.ModelBackend")
    assert {client.get(f"/api{path}").status_code for path in paths} == {403}
    for name in ("cancel", "resume", "start", "retry"):
        assert send(client, "POST", f"/jobs/{job.pk}/{name}").status_code == 403
    assert send(client, "PUT", "/jobs/queue", {"paused": True}).status_code == 403
    assert send(client, "POST", "/schedules", {**NEW, "name": "x", "cron": "0 2 * * *"}).status_code == 403
    job.refresh_from_db()
    assert job.status == Status.QUEUED
