"""The sockets of jobs: who may listen, what comes at once, what comes when something changes, and bad input."""

from __future__ import annotations

import json
from dataclasses import fields
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Permission

from accounts import services as accounts
from accounts.models import ApiKey, User
from finetuning.live import consumers, feed, frames
from finetuning.live.nudges import announce_job, announce_queue
from finetuning.models import FineTuningJob, JobMetric, TrainingQueue
from tests.chat.conftest import live  # noqa: F401
from tests.chat.support import Socket, cookie_of
from tests.finetuning.job_rows import Status, add_event, add_steps, make_job
from tests.support.tables import changes, dump_tables

run = sync_to_async


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A test that hears of something was nudged: the fallback comes too late for it."""
    monkeypatch.setattr(consumers, "LONGEST_SILENCE", 60.0)
    monkeypatch.setattr(consumers, "SHORTEST_PAUSE", 0.0)


@pytest.fixture
async def job(admin_user, live):  # noqa: F811
    def make() -> FineTuningJob:
        job = make_job(admin_user)
        add_steps(job, 1, 3)
        add_event(job, "started", "The training began.")
        return job

    return await run(make)()


@pytest.fixture
async def connect(live):  # noqa: F811
    sockets: list[Socket] = []

    async def open_socket(user, path: str) -> Socket:
        socket = await Socket.open(cookie=await run(cookie_of)(user), path=path)
        sockets.append(socket)
        return socket

    yield open_socket
    for socket in sockets:
        await socket.close()


def path_of(job: FineTuningJob) -> str:
    return f"/ws/jobs/{job.pk}/"


async def news(socket: Socket, kind: str = "job.updated") -> dict:
    return await socket.receive_until(kind)


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws/jobs/", f"/ws/jobs/{UUID(int=1)}/"])
async def test_nobody_and_members_are_sent_away(alice, live, path):  # noqa: F811
    nobody = await Socket.open(path=path)
    assert await nobody.receive_close() == 4401
    member = await Socket.open(cookie=await run(cookie_of)(alice), path=path)
    assert await member.receive_close() == 4403
    await nobody.close()
    await member.close()


async def test_person_with_the_permission_may_listen(bob, job, connect):
    await run(bob.user_permissions.add)(await run(Permission.objects.get)(codename="curate"))
    socket = await connect(bob, path_of(job))
    await socket.send("job.subscribe")
    assert (await news(socket))["job"]["id"] == str(job.pk)


async def test_unknown_job_is_closed_as_not_found(admin_user, connect):
    socket = await connect(admin_user, f"/ws/jobs/{uuid4()}/")
    await socket.send("job.subscribe")
    assert await socket.receive_close() == 4404


async def test_socket_ends_when_the_permission_is_taken_away(bob, job, connect):
    permission = await run(Permission.objects.get)(codename="curate")
    await run(bob.user_permissions.add)(permission)
    socket = await connect(bob, path_of(job))
    await socket.send("job.subscribe")
    await news(socket)
    await run(bob.user_permissions.remove)(permission)
    await run(announce_job)(job.pk)
    assert await socket.receive_close() == 4403


async def test_socket_ends_with_its_key(admin_user, job, live):  # noqa: F811
    key, plain = await run(ApiKey.create_for)(admin_user)
    socket = await Socket.open(key=plain, path=path_of(job))
    await socket.send("job.subscribe")
    await news(socket)
    await run(accounts.revoke_key)(key)
    assert await socket.receive_close() == 4401
    await socket.close()


async def test_look_of_somebody_deactivated_ends_the_socket(admin_user, job, connect):
    """Even when nobody said so over the layer."""
    socket = await connect(admin_user, path_of(job))
    await socket.send("job.subscribe")
    await news(socket)
    await run(User.objects.filter(pk=admin_user.pk).update)(is_active=False)
    await run(announce_job)(job.pk)
    assert await socket.receive_close() == 4401


# --- a job ------------------------------------------------------------------------------------------------------------


async def test_subscribing_shows_state_then_metrics_then_log(admin_user, job, connect):
    socket = await connect(admin_user, path_of(job))
    await socket.send("job.subscribe")
    events = await news(socket, "job.events")
    assert [frame["type"] for frame in socket.frames] == ["job.updated", "job.metrics", "job.events"]
    state, metrics, _ = socket.frames
    assert (state["job"]["status"], state["job"]["step"], state["job"]["total_steps"]) == ("running", 3, 120)
    assert [metric["step"] for metric in metrics["metrics"]] == [1, 2, 3]
    assert [event["code"] for event in events["events"]] == ["started"]


async def test_subscribing_in_the_middle_repeats_only_the_last_step(admin_user, job, connect):
    event = await run(add_event)(job, "checkpoint", "Saved.")
    socket = await connect(admin_user, path_of(job))
    await socket.send("job.subscribe", after_event=event.pk - 1, after_step=2)
    events = await news(socket, "job.events")
    assert [metric["step"] for metric in socket.frames[1]["metrics"]] == [2, 3]
    assert [event["code"] for event in events["events"]] == ["checkpoint"]


async def test_nudge_brings_only_what_is_new(admin_user, job, connect):
    socket = await connect(admin_user, path_of(job))
    await socket.send("job.subscribe")
    await news(socket, "job.events")
    await run(add_steps)(job, 4, 5)
    await run(announce_job)(job.pk)
    state = await news(socket)
    metrics = await news(socket, "job.metrics")
    assert state["job"]["step"] == 5
    assert [metric["step"] for metric in metrics["metrics"]] == [4, 5]
    await run(announce_job)(job.pk)
    assert await socket.nothing_comes()


async def test_evaluation_added_to_a_step_that_was_shown_is_shown(admin_user, job, connect):
    socket = await connect(admin_user, path_of(job))
    await socket.send("job.subscribe")
    await news(socket, "job.events")
    await run(JobMetric.objects.filter(job=job, step=3).update)(evaluation={"loss": 1.5})
    await run(announce_job)(job.pk)
    metrics = (await news(socket, "job.metrics"))["metrics"]
    assert [(metric["step"], metric["evaluation"]) for metric in metrics] == [(3, {"loss": 1.5})]


async def test_steps_done_again_after_a_resume_are_sent_again(admin_user, job, connect):
    socket = await connect(admin_user, path_of(job))
    await socket.send("job.subscribe")
    await news(socket, "job.events")

    def resume() -> None:
        JobMetric.objects.filter(job=job, step__gt=1).delete()
        FineTuningJob.objects.filter(pk=job.pk).update(step=1, attempt=2)

    await run(resume)()
    await run(announce_job)(job.pk)
    assert (await news(socket))["job"]["step"] == 1
    await run(add_steps)(job, 2, 4)
    await run(announce_job)(job.pk)
    metrics = await socket.receive_until("job.metrics", where=lambda frame: frame["metrics"][-1]["step"] == 4)
    assert [metric["step"] for metric in metrics["metrics"]][-3:] == [2, 3, 4]


async def test_without_a_nudge_it_looks_by_itself(admin_user, job, connect, monkeypatch):
    monkeypatch.setattr(consumers, "LONGEST_SILENCE", 0.05)
    socket = await connect(admin_user, path_of(job))
    await socket.send("job.subscribe")
    await news(socket, "job.events")
    await run(FineTuningJob.objects.filter(pk=job.pk).update)(status=Status.SUCCEEDED)
    assert (await news(socket))["job"]["status"] == "succeeded"


async def test_long_history_is_thinned_and_comes_in_bounded_frames(admin_user, job, connect, monkeypatch):
    monkeypatch.setattr(feed, "MAX_POINTS", 100)
    monkeypatch.setattr(feed, "METRICS_PER_FRAME", 40)
    await run(add_steps)(job, 4, 1003, evaluate_every=250)
    socket = await connect(admin_user, path_of(job))
    await socket.send("job.subscribe")
    await news(socket, "job.events")
    sent = [frame["metrics"] for frame in socket.frames if frame["type"] == "job.metrics"]
    steps = [metric["step"] for metrics in sent for metric in metrics]
    assert max(map(len, sent)) <= 40
    assert len(steps) <= 110
    assert steps == sorted(set(steps))
    assert {250, 500, 750, 1000, 1003} <= set(steps)


async def test_long_log_shows_its_newest_lines(admin_user, job, connect, monkeypatch):
    monkeypatch.setattr(feed, "MAX_EVENTS", 10)
    for number in range(12):
        await run(add_event)(job, "checkpoint", str(number))
    socket = await connect(admin_user, path_of(job))
    await socket.send("job.subscribe")
    events = (await news(socket, "job.events"))["events"]
    assert [event["message"] for event in events] == [str(number) for number in range(2, 12)]


async def test_announcing_without_valkey_only_logs(admin_user, job, settings):
    layers = {"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"}}
    layers["default"]["CONFIG"] = {"hosts": ["redis://127.0.0.1:1/0"]}
    settings.CHANNEL_LAYERS = layers
    await run(announce_job)(job.pk)
    await run(announce_queue)()


# --- the queue --------------------------------------------------------------------------------------------------------


async def test_queue_shows_what_has_not_ended_and_says_when_it_changes(admin_user, job, connect):
    await run(make_job)(admin_user, Status.SUCCEEDED, dataset_version=job.dataset_version)
    socket = await connect(admin_user, "/ws/jobs/")
    await socket.send("job.subscribe")
    first = (await news(socket, "queue.updated"))["queue"]
    assert [row["id"] for row in first["jobs"]] == [str(job.pk)]
    assert first["is_paused"] is False
    await run(TrainingQueue.objects.create)(paused_at=job.created_at)
    await run(announce_queue)()
    second = (await news(socket, "queue.updated"))["queue"]
    assert second["is_paused"] is True
    assert second["revision"] != first["revision"]


async def test_progress_alone_is_no_other_revision(admin_user, job, connect):
    socket = await connect(admin_user, "/ws/jobs/")
    await socket.send("job.subscribe")
    first = (await news(socket, "queue.updated"))["queue"]
    await run(add_steps)(job, 4, 9)
    await run(announce_job)(job.pk)
    second = (await news(socket, "queue.updated"))["queue"]
    assert second["jobs"][0]["step"] == 9
    assert second["revision"] == first["revision"]


# --- bad input --------------------------------------------------------------------------------------------------------

UNREADABLE = [
    *("{", "[]", '"ping"', "null", "1", "{}", '{"type": "message.create"}', '{"type": 1}', "[" * 100_000),
    *('{"type": "job.subscribe", "request_id": "\\ud800"}', '{"type": "ping", "request_id": 1}'),
    *(b"{}", b"\xff\xfe", b"\0"),
]
BAD_FIELDS = [
    *({"after_event": value} for value in (-1, 1.0, "1", None, True, 2**63)),
    *({"after_step": value} for value in (-2, 0.5, "1", None, False, 2**40)),
    {"surprise": 1},
]


async def test_bad_frames_are_answered_and_the_socket_goes_on(admin_user, job, connect):
    socket = await connect(admin_user, path_of(job))
    before = await run(dump_tables)()
    for text in [*UNREADABLE, *(json.dumps({"type": "job.subscribe", **bad}) for bad in BAD_FIELDS)]:
        await socket.send_raw(**({"bytes_data": text} if isinstance(text, bytes) else {"text_data": text}))
        error = await socket.receive()
        assert (error["type"], error["code"], bool(error["message"])) == ("error", "invalid", True), text
    await socket.send("ping", request_id="still here")
    assert await socket.receive() == {"type": "pong", "request_id": "still here"}
    assert changes(before, await run(dump_tables)()) == {}


async def test_refusal_repeats_the_request_id(admin_user, job, connect):
    socket = await connect(admin_user, path_of(job))
    await socket.send("job.subscribe", request_id="mine", after_step="two")
    assert (await socket.receive())["request_id"] == "mine"


SERVER_FRAMES = [
    (frames.JobUpdated(job={"id": "1"}), "job.updated", ["job"]),
    (frames.JobMetrics(job_id="1", metrics=[]), "job.metrics", ["job_id", "metrics"]),
    (frames.JobEvents(job_id="1", events=[]), "job.events", ["job_id", "events"]),
    (frames.QueueUpdated(queue={}), "queue.updated", ["queue"]),
]


@pytest.mark.parametrize(("event", "kind", "names"), SERVER_FRAMES, ids=[kind for _, kind, _ in SERVER_FRAMES])
def test_frame_has_its_fields_and_no_others(event, kind, names):
    assert event.to_dict().keys() == {"type", *names}
    assert event.to_dict()["type"] == kind
    assert {field.name for field in fields(event)} == {*names, "request_id"}
