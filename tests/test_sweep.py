"""Every address and every socket frame, times everybody: whoever is refused changed nothing and learned nothing.

What is added to the product is swept by itself. A path that needs a value nobody gave here fails the test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.usersessions.models import UserSession
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)

from accounts.models import ApiKey, User
from chat.events import CLIENT_FRAMES
from chat.models import Choice, Conversation, Correction, Feedback, Message
from config.api import api
from finetuning.models import Lineage, Schedule
from models_hub.models import AliasEvent, ModelVersion, RegisteredModel
from tests.chat.conftest import connect, live, model  # noqa: F401
from tests.chat.support import ENDS, Socket, make_model
from tests.finetuning.dataset_rows import make_dataset_values
from tests.finetuning.job_rows import make_job, make_result
from tests.support.addresses import Address, bodies_of_the_api, list_addresses
from tests.support.fixtures import upstream  # noqa: F401
from tests.support.tables import changes, dump_tables

# In every row of alice's; what she said to a model, which an admin does not read either; a word beside it to look for.
SECRET = "xylophone"
SPOKEN = "marimba"
NEEDLE = "zither"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|REPLACE|CREATE|DROP|ALTER|TRUNCATE)", re.IGNORECASE)
SIGN_IN = ("/accounts/login/", "/admin/login/")

# Open to everybody; whatever else answers somebody who is not signed in fails the test.
PUBLIC = {
    *("healthz", "readyz", "admin:login", "admin:jsi18n"),
    *("account_login", "account_logout", "account_signup", "account_inactive", "accounts_waiting"),
    *("account_reset_password", "account_reset_password_done"),
    *("account_reset_password_from_key", "account_reset_password_from_key_done"),
    *("account_confirm_email", "account_email_verification_sent"),
    *("api:openapi-json", "api:openapi-view"),  # how the API is spoken, the same for everybody
    *("admin:logout", "accounts/email/", "accounts/sessions/"),  # lead on to pages that ask who it is
}
# Parameters that name something of alice's: nobody else gets an answer there.
HERS = {"conversation_id", "key_id", "session_id", "message_id"}
# What opens to nobody here: no such page, nothing there to open, rows that nobody may add or delete by hand.
SHUT = {
    "versions:export",  # its weights are at the provider
    "jobs:promote",  # wants a reason, and empty forms have none
    *("readyz", "api:api-root", "admin/<url>", "admin:view_on_site", "admin:autocomplete"),
    *("mfa_view_recovery_codes", "mfa_download_recovery_codes", "mfa_deactivate_totp"),
    *("admin:accounts_apikey_add", "admin:accounts_apikey_delete"),
    *("admin:chat_conversation_add", "admin:chat_conversation_delete"),
    *("admin:models_hub_aliasevent_add", "admin:models_hub_aliasevent_delete"),
    *(
        "admin:models_hub_alias_delete",
        "admin:models_hub_modelversion_delete",
        "admin:models_hub_registeredmodel_delete",
    ),
    *(
        f"admin:finetuning_{table}_{page}"
        for table in (
            *("dataset", "datasetimport", "datasetversion", "example"),
            *("finetuningjob", "schedule", "evaluation", "lineage"),
        )
        for page in ("add", "delete")
    ),
}


@dataclass
class Ground:
    people: dict[str, User | None]
    values: dict[str, Any]
    bodies: dict[str, Any]
    schema: dict[str, Any]


def secret_rows(alice: User) -> dict[str, Any]:
    """Alice's things, each with the secret in it; the values that paths and frames name them by."""
    User.objects.filter(pk=alice.pk).update(first_name=SECRET, training_consent_at=timezone.now())
    EmailAddress.objects.create(user=alice, email=f"{SECRET}@example.org")
    said = f"{SECRET} {SPOKEN} {NEEDLE}"
    conversation = Conversation.objects.create(owner=alice, title=said, system_prompt=said, model="scripted")
    question = Message.objects.create(conversation=conversation, role="user", content=f"{said} [[tokens=2]]")
    answers = [
        Message.objects.create(
            conversation=conversation,
            parent=question,
            depth=1,
            role="assistant",
            content=said,
            html=f"<p>{said}</p>",
            status=status,
            options={"stop": [said]},
        )
        for status in (Message.Status.COMPLETE, Message.Status.INTERRUPTED)
    ]
    Conversation.objects.filter(pk=conversation.pk).update(current_leaf=answers[1])
    Feedback.objects.create(message=answers[0], user=alice, rating=-1, comment=said)
    Correction.objects.create(message=answers[0], user=alice, content=said)
    Choice.objects.create(question=question, chosen=answers[0], user=alice)
    sign_in = UserSession.objects.create(
        user=alice, session_key="alice's", ip="127.0.0.1", user_agent=SECRET, data={"note": SECRET}
    )
    key, _ = ApiKey.create_for(alice, name=SECRET)
    binned = Conversation.objects.create(owner=alice, title=said, model="scripted", deleted_at=conversation.created_at)
    return {
        "conversation_id": conversation.pk,
        "api:restore_conversation conversation_id": binned.pk,
        "parent_id": question.pk,
        "edit_of": question.pk,
        "message_id": answers[1].pk,
        "key_id": key.pk,
        "session_id": sign_in.pk,
    }


def rows_of_everybody(admin: User) -> dict[str, Any]:
    """One row at least for every page of the admin."""
    version = ModelVersion.objects.get()
    second = ModelVersion.objects.create(model=version.model, number=2, provider_model="scripted")
    for place in (second, version):  # so that it can be rolled back
        AliasEvent.objects.create(
            model=version.model,
            alias="production",
            to_version=place,
            to_number=place.number,
            actor=admin,
            reason="first",
        )
    Group.objects.create(name="few")
    every = IntervalSchedule.objects.create(every=1, period="days")
    CrontabSchedule.objects.create()
    SolarSchedule.objects.create(event="sunset", latitude=0, longitude=0)
    ClockedSchedule.objects.create(clocked_time="2030-01-01T00:00:00Z")
    PeriodicTask.objects.create(name="sweep", task="config.tasks.clear_expired_sessions", interval=every)
    job = make_job(admin, name=SECRET)
    lineage = {"dataset_version": job.dataset_version, "base_version": job.base_version, "method": job.method}
    result = make_result(job)
    RegisteredModel.objects.filter(pk=result.model_id).update(name="Result")  # everybody may know the models
    Lineage.objects.create(version=result, job=job, **lineage)
    recipe = {"method": job.method, "base": job.base, "target": job.target, "cron": "0 2 * * sun"}
    schedule = Schedule.objects.create(name=SECRET, dataset=job.dataset_version.dataset, created_by=admin, **recipe)
    return make_dataset_values(admin, name=f"{SECRET} rows") | {
        "job_id": job.pk,
        "api:retry_job job_id": make_job(admin, "cancelled", name=SECRET).pk,
        "schedule_id": schedule.pk,
        "slug": "scripted",
        "number": 2,
        "alias": "production",
        "app_label": "accounts",
        "url": "no/such/page",
        "content_type_id": ContentType.objects.get_for_model(Conversation).pk,
        "admin:view_on_site object_id": Conversation.objects.filter(deleted_at=None).get().pk,
        "key": "not-a-key",
        "uidb36": "1",
    }


def choose(name: str, field: dict[str, Any]) -> Any:
    """A value for a field of the API, from its own documentation."""
    known = {"default_model": "scripted", "model": "scripted", "theme": "dark", "version": 2, "title": "Stolen"}
    if name in known:
        return known[name]
    if examples := field.get("examples"):
        return examples[0]
    kinds = {field.get("type"), *(option.get("type") for option in field.get("anyOf", ()))}
    plain = {"string": "stolen", "integer": 1, "number": 1, "boolean": True, "object": {}, "array": []}
    return next((value for kind, value in plain.items() if kind in kinds), None)


@pytest.fixture
def people(alice, charlie, admin_user) -> dict[str, User | None]:
    return {"anonymous": None, "stranger": charlie, "owner": alice, "admin": admin_user}


@pytest.fixture
def model_cache(settings, tmp_path) -> None:
    """Weights that can be trained, as far as anybody looks before a training."""
    folder = tmp_path / "smollm2-135m-instruct"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).touch()
    settings.DIALOOP = replace(settings.DIALOOP, model_cache_dir=tmp_path)


@pytest.fixture
def ground(people, upstream, model_cache) -> Ground:  # noqa: F811
    make_model(upstream)
    values = secret_rows(people["owner"]) | rows_of_everybody(people["admin"])
    schema = api.get_openapi_schema()
    return Ground(people, values, bodies_of_the_api(schema, choose), schema)


@contextmanager
def undone() -> Iterator[list[str]]:
    """What happens inside is taken back. Yields the writes that were made, as the database was told them."""
    writes: list[str] = []

    def watch(execute, sql, parameters, many, context):
        if WRITES.match(sql):
            writes.append(sql)
        return execute(sql, parameters, many, context)

    with transaction.atomic(), connection.execute_wrapper(watch):
        yield writes
        transaction.set_rollback(True)


class Sweep:
    """One person's calls at every address, each on the same ground, and what was wrong with them."""

    def __init__(self, ground: Ground, *, cookie: str = "", key: str = "", with_token: bool = True) -> None:
        self._ground = ground
        self._cookie = cookie
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._with_token = with_token
        self._before = dump_tables()
        self.faults: list[str] = []
        self.let_in: set[tuple[str, str]] = set()

    def run(self) -> None:
        """Raises AssertionError with every fault."""
        for address in list_addresses():
            for method in METHODS:
                with undone() as writes:
                    response = self._call(address, method)
                    changed = changes(self._before, dump_tables()) if writes else {}
                if not is_refused(response):
                    self.let_in.add((method, address.name))
                self._judge(address, method, response, changed)
        assert not self.faults, "\n".join(self.faults)

    def _call(self, address: Address, method: str) -> HttpResponse:
        client = Client(raise_request_exception=False, enforce_csrf_checks=not self._with_token, headers=self._headers)
        if self._cookie:
            client.cookies["sessionid"] = self._cookie
        path = address.path(self._ground.values)
        if method == "GET":
            return client.get(path, {"q": NEEDLE} if address.takes("q", self._ground.schema) else {})
        if path.startswith("/api/"):
            body = self._ground.bodies.get(f"{method} {address.plain}", {})
            return client.generic(method, path, json.dumps(body), content_type="application/json")
        form = {"name": "stolen", "title": "stolen", "post": "yes", "theme": "dark", "key-name": "stolen"}
        return client.post(path, form) if method == "POST" else client.generic(method, path)

    def _judge(self, address: Address, method: str, response: HttpResponse, changed: dict[str, list[str]]) -> None:
        where = f"{method} {address.name}: {response.status_code}"
        # /readyz says 503 where no engine runs.
        if response.status_code >= 500 and address.name != "readyz":
            self.faults.append(f"{where}, an error of ours")
        if changed and is_refused(response):
            self.faults.append(f"{where}, refused, and yet changed {changed}")
        if changed and method == "GET":
            self.faults.append(f"{where}, a look that changed {changed}")

    def expect(self, is_right: bool, sentence: str) -> None:
        if not is_right:
            self.faults.append(sentence)


class StrangersSweep(Sweep):
    """Somebody whose business alice's things are not."""

    def _judge(self, address: Address, method: str, response: HttpResponse, changed: dict[str, list[str]]) -> None:
        super()._judge(address, method, response, changed)
        where = f"{method} {address.name}: {response.status_code}"
        self.expect(SECRET not in text_of(response), f"{where}, tells her secret")
        taken = [row for rows in changed.values() for row in rows if SECRET in row]
        self.expect(not taken, f"{where}, touched what is hers: {taken}")
        if HERS & set(address.parameters):
            self.expect(is_refused(response), f"{where}, for something of hers")


class AnonymousSweep(StrangersSweep):
    def _judge(self, address: Address, method: str, response: HttpResponse, changed: dict[str, list[str]]) -> None:
        super()._judge(address, method, response, changed)
        where = f"{method} {address.name}: {response.status_code}"
        self.expect(not changed, f"{where}, changed {changed}")
        self.expect(is_refused(response) or address.name in PUBLIC, f"{where}, open to everybody")


def is_refused(response: HttpResponse) -> bool:
    """Said no, or sent to sign in."""
    return response.status_code >= 400 or (
        response.status_code in {301, 302} and response["Location"].partition("?")[0] in SIGN_IN
    )


def text_of(response: HttpResponse) -> str:
    content = b"".join(response)
    return content.decode("utf-8", "replace") + str(response.headers) + str(response.cookies)


def cookie_for(user: User) -> str:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client.cookies["sessionid"].value


def test_every_address_has_a_path(ground):
    """The values above fit: each path leads to the very pattern it was made for, or to one before it."""
    paths = [address.path(ground.values) for address in list_addresses()]
    assert len(paths) > 100
    assert all(not re.search(r"[<>]", path) for path in paths)


def test_nobody_gets_anywhere_but_to_the_entrance(ground):
    sweep = AnonymousSweep(ground)
    sweep.run()


def test_wrong_key_opens_nothing(ground):
    sweep = AnonymousSweep(ground, key="dl-wrong")
    sweep.run()


def test_stranger_learns_and_changes_nothing_of_others(ground):
    sweep = StrangersSweep(ground, cookie=cookie_for(ground.people["stranger"]))
    sweep.run()


def test_strangers_key_learns_and_changes_nothing_of_others(ground):
    _, key = ApiKey.create_for(ground.people["stranger"])
    sweep = StrangersSweep(ground, key=key)
    sweep.run()


def test_owner_and_admin_are_let_in_and_a_refusal_changes_nothing(ground):
    """Also that the calls are good enough to prove something: each address and each write of the API opens to one."""
    owner = Sweep(ground, cookie=cookie_for(ground.people["owner"]))
    admin = AdminsSweep(ground, cookie=cookie_for(ground.people["admin"]))
    owner.run()
    admin.run()
    opened = owner.let_in | admin.let_in
    assert {address.name for address in list_addresses()} - {name for _, name in opened} == SHUT
    names = {address.plain: address.name for address in list_addresses()}
    writes = [operation.split() for operation in ground.bodies]
    assert [(method, path) for method, path in writes if (method, names[path]) not in opened] == []


class AdminsSweep(Sweep):
    """An admin runs the place and yet does not read along."""

    def _judge(self, address: Address, method: str, response: HttpResponse, changed: dict[str, list[str]]) -> None:
        super()._judge(address, method, response, changed)
        where = f"{method} {address.name}: {response.status_code}"
        self.expect(SPOKEN not in text_of(response), f"{where}, shows what was said")


class ForgedSweep(Sweep):
    """Another site's page makes this person's browser call: the cookie comes along, the token does not."""

    def _judge(self, address: Address, method: str, response: HttpResponse, changed: dict[str, list[str]]) -> None:
        super()._judge(address, method, response, changed)
        self.expect(not changed, f"{method} {address.name}: {response.status_code}, changed {changed}")


def test_session_changes_nothing_without_its_csrf_token(ground):
    ForgedSweep(ground, cookie=cookie_for(ground.people["owner"]), with_token=False).run()


# --- socket frames ----------------------------------------------------------------------------------------------------

# What every frame takes is said here once; a field without a value fails the test.
FIELDS = {"content": "[[tokens=2]]", "model": "scripted", "options": {"seed": 1}, "after": {}}
# Names nothing of anybody's.
HARMLESS = {"ping"}
# An end, a plain answer, or the first frame of what begins.
ANSWERS = {*ENDS, "conversation.updated", "conversation.subscribed", "reply.started", "pong", "error"}


@pytest.fixture
async def talk(people, model) -> dict[str, Any]:  # noqa: F811
    values = await sync_to_async(secret_rows)(people["owner"])
    return FIELDS | {name: str(value) for name, value in values.items()}


def fill(kind: str, talk: dict[str, Any]) -> dict[str, Any]:
    """The frame with every field it knows."""
    return {name: talk[name] for name in CLIENT_FRAMES[kind].parsers}


async def ask(socket: Socket, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Send it; its answer."""
    await socket.send(kind, request_id=kind, **fields)
    if kind == "conversation.unsubscribe":  # to its owner it answers nothing
        await socket.send("ping", request_id=kind)
    return await socket.receive_until(*ANSWERS, where=lambda frame: frame.get("request_id") == kind)


@pytest.mark.parametrize("who", ["stranger", "admin"])
async def test_frame_about_somebody_elses_things_finds_nothing(people, talk, connect, who):  # noqa: F811
    socket = await connect(people[who])
    before = await sync_to_async(dump_tables)()
    for kind in CLIENT_FRAMES:
        answer = await ask(socket, kind, fill(kind, talk))
        if kind not in HARMLESS:
            assert (answer["type"], answer.get("code")) == ("error", "not_found"), kind
        assert changes(before, await sync_to_async(dump_tables)()) == {}, kind
    assert SECRET not in json.dumps(socket.frames)


async def test_frame_of_nobody_is_not_even_answered(talk, live):  # noqa: F811
    before = await sync_to_async(dump_tables)()
    for kind in CLIENT_FRAMES:
        socket = await Socket.open()
        await socket.send(kind, **fill(kind, talk))
        assert await socket.receive_close() == 4401, kind
        await socket.close()
    assert socket.frames == []
    assert changes(before, await sync_to_async(dump_tables)()) == {}


async def test_frame_of_the_owner_is_answered(people, talk, connect):  # noqa: F811
    """So the refusals above are of the person, not of the frame."""
    for kind in CLIENT_FRAMES:
        socket = await connect(people["owner"])
        answer = await ask(socket, kind, fill(kind, talk))
        assert answer["type"] != "error", answer
        if answer["type"] == "reply.started":
            await socket.finish(answer["message"]["id"])
