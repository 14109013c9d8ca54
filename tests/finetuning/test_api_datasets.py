"""`/api/datasets` as a program meets it: an upload in parts, a review, a frozen version, its export; and who may."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.http import HttpResponse
from django.test import Client

from accounts.models import ApiKey
from chat import feedback
from finetuning import datasets, tasks
from finetuning.datasets import bulk_review
from finetuning.models import Dataset, DatasetImport, DatasetVersion, Example
from tests.chat.conftest import make_conversation
from tests.finetuning.datasets.support import (
    chat_draft,
    chat_lines,
    chat_row,
    fill,
    labelled_draft,
    waiting,
)


class Api:
    def __init__(self, user: Any) -> None:
        self._client = Client(headers={"Authorization": f"Bearer {ApiKey.create_for(user)[1]}"})

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> HttpResponse:
        data = body if isinstance(body, bytes) else json.dumps(body) if body is not None else b""
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        return self._client.generic(method, f"/api/datasets{path}", data, content_type=kind, headers=headers)


@pytest.fixture
def curator(bob):
    bob.user_permissions.add(Permission.objects.get(codename="curate"))
    return bob


@pytest.fixture
def api(curator) -> Api:
    return Api(curator)


@pytest.fixture
def dataset(curator) -> Dataset:
    return datasets.create_dataset("Rivers", user=curator)


@pytest.fixture
def twenty(dataset) -> Dataset:
    return fill(dataset, [chat_draft(number) for number in range(1, 21)])


def bulk(api: Api, dataset: Dataset, **body: Any) -> tuple[int, bool]:
    answer = api("POST", f"/{dataset.pk}/examples/bulk", body).json()
    return answer["changed"], answer["is_done"]


def content(count: int) -> bytes:
    return "".join(line + "\n" for line in chat_lines(count)).encode()


def test_upload_from_the_first_call_to_the_last_part(api):
    data = content(70_000)
    made = api("POST", "", {"name": "Rivers", "file_name": "rows.jsonl", "size": len(data)})
    assert made.status_code == 201
    dataset_id, upload = made.json()["id"], made.json()["import"]
    size, parts = upload["part_size"], upload["parts"]
    assert (size, parts, upload["received"]) == (4 * 1024 * 1024, -(-len(data) // size), [])
    for number in range(parts, 0, -1):
        part = data[(number - 1) * size : number * size]
        sent = api("PUT", f"/{dataset_id}/imports/{upload['id']}/parts/{number}", part)
        assert sent.status_code == 200
        assert sent.json()["received"] == list(range(number, parts + 1))
    assert sent.json()["status"] == "queued"
    datasets.cancel_import(DatasetImport.objects.get())


def test_part_goes_to_the_newest_upload_when_none_is_named(api, dataset):
    data = content(20)
    upload = api("POST", f"/{dataset.pk}/imports", {"file_name": "a.jsonl", "size": len(data)}).json()
    assert api("PUT", f"/{dataset.pk}/parts/1", data).json() == {"received": [1], "parts": 1, "status": "queued"}
    datasets.run_import(uuid.UUID(upload["id"]))
    state = api("GET", f"/{dataset.pk}/imports/{upload['id']}").json()
    assert (state["status"], state["rows_added"], state["error"]) == ("succeeded", 20, None)
    assert state["layout"]["format_name"] == "chat_messages"


def test_part_that_says_it_is_too_large_is_refused_before_it_is_read(api, dataset, monkeypatch):
    api("POST", f"/{dataset.pk}/imports", {"file_name": "a.jsonl", "size": 100})
    from django.core.handlers.wsgi import WSGIRequest

    monkeypatch.setattr(WSGIRequest, "body", property(lambda request: pytest.fail("the body was read")))
    refused = api("PUT", f"/{dataset.pk}/parts/1", b"x" * (4 * 1024 * 1024 + 1))
    assert (refused.status_code, refused.json()["code"]) == (413, "too_long")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"file_name": "a.jsonl", "size": 0}, 400),
        ({"file_name": "a.zip", "size": 10}, 400),
        ({"file_name": "a.jsonl", "size": 2**30 + 1}, 413),
        ({"file_name": "a.jsonl"}, 400),
        ({"file_name": "a.jsonl", "size": "many"}, 400),
        ({"file_name": "a.jsonl", "size": 10, "colour": "red"}, 400),
    ],
)
def test_upload_that_cannot_be_is_refused_with_a_sentence(api, dataset, body, status):
    refused = api("POST", f"/{dataset.pk}/imports", body)
    assert refused.status_code == status
    assert refused.json()["message"]
    assert not DatasetImport.objects.exists()


def test_half_an_upload_is_not_begun(api):
    refused = api("POST", "", {"name": "Rivers", "file_name": "a.jsonl"})
    assert refused.status_code == 400
    assert not Dataset.objects.exists()


def test_columns_are_mapped_and_problems_listed(api, dataset):
    rows = [{"said": f"Sentence {number}", "mood": "good" if number else None} for number in range(12)]
    data = "\n".join(map(json.dumps, rows)).encode()
    upload = api("POST", f"/{dataset.pk}/imports", {"file_name": "a.jsonl", "size": len(data)}).json()
    where = f"/{dataset.pk}/imports/{upload['id']}"
    assert api("PUT", f"{where}/parts/1", data).json()["status"] == "waiting"
    choice = {"format_name": "classification", "columns": {"text": "said", "label": "mood"}}
    assert api("POST", f"{where}/layout", choice).json()["status"] == "queued"
    assert api("POST", f"{where}/layout", choice).status_code == 409
    datasets.run_import(uuid.UUID(upload["id"]))
    assert api("GET", where).json()["codes"] == {"missing_label": 1}
    (problem,) = api("GET", f"{where}/problems").json()["items"]
    assert (problem["line"], problem["code"], problem["severity"]) == (1, "missing_label", "error")
    assert [item["id"] for item in api("GET", f"/{dataset.pk}/imports").json()["items"]] == [upload["id"]]


def test_import_is_cancelled(api, dataset):
    upload = api("POST", f"/{dataset.pk}/imports", {"file_name": "a.jsonl", "size": 10}).json()
    assert api("POST", f"/{dataset.pk}/imports/{upload['id']}/cancel").json()["status"] == "cancelled"
    late = api("PUT", f"/{dataset.pk}/imports/{upload['id']}/parts/1", b"x" * 10)
    assert (late.status_code, late.json()["code"]) == (409, "busy")


def test_dataset_is_read_renamed_and_deleted(api, twenty):
    read = api("GET", f"/{twenty.pk}").json()
    assert (read["kind"], read["counts"]["approved"], read["measures"]["lengths"]["count"]) == ("chat", 20, 20)
    assert api("PATCH", f"/{twenty.pk}", {"name": "Lakes"}).json()["name"] == "Lakes"
    assert [item["name"] for item in api("GET", "").json()["items"]] == ["Lakes"]
    assert api("DELETE", f"/{twenty.pk}").status_code == 204
    assert api("GET", f"/{twenty.pk}").status_code == 404
    assert api("GET", "").json()["items"] == []


def test_name_that_is_taken_is_refused(api, dataset):
    refused = api("POST", "", {"name": "Rivers"})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")


def test_rows_are_searched_edited_and_decided(api, twenty, curator):
    (row,) = api("GET", f"/{twenty.pk}/examples?q=Question 12").json()["items"]
    where = f"/{twenty.pk}/examples/{row['id']}"
    changed = api("PATCH", where, {"content": chat_row(12, "Better."), "status": "rejected"}).json()
    assert (changed["content"], changed["original"]) == (chat_row(12, "Better."), chat_row(12))
    assert (changed["status"], changed["reviewed_by"]) == ("rejected", curator.username)
    refused = api("PATCH", where, {"content": {"messages": []}})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid")
    assert api("GET", f"/{twenty.pk}/examples?status=rejected").json()["items"][0]["id"] == row["id"]
    assert api("GET", f"/{twenty.pk}/examples?status=odd").status_code == 400


def test_many_rows_are_decided_at_once(api, twenty):
    some = list(Example.objects.values_list("pk", flat=True)[:3])
    assert bulk(api, twenty, action="reject", ids=some) == (3, True)
    assert bulk(api, twenty, action="reopen", filter={"status": "approved"}) == (17, True)
    assert bulk(api, twenty, action="mask", filter={}) == (0, True)
    assert bulk(api, twenty, action="delete", ids=some) == (3, True)
    for body in ({"action": "approve"}, {"action": "approve", "ids": some, "filter": {}}, {"action": "eat", "ids": []}):
        assert api("POST", f"/{twenty.pk}/examples/bulk", body).status_code == 400
    assert Example.objects.count() == 17


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"action": "approve"}, {"status": "approved"}),
        ({"action": "reopen"}, {"status": "pending"}),
        ({"action": "relabel", "label": "fine"}, {"label": "fine"}),
        ({"action": "delete"}, None),
    ],
)
def test_more_rows_than_are_decided_at_once_are_left_to_a_worker(api, dataset, monkeypatch, body, found):
    fill(dataset, [labelled_draft(number, "good") for number in range(6)])
    Example.objects.update(status="rejected")
    monkeypatch.setattr(bulk_review, "AT_ONCE", 5)
    before = list(Example.objects.values_list("status", "label"))
    assert bulk(api, dataset, **body, filter={"label": "good"}) == (6, False)
    assert list(Example.objects.values_list("status", "label")) == before
    fill(dataset, [labelled_draft(7, "good")], is_approved=False)  # nobody has seen it
    (sent,) = waiting()
    tasks.decide_about_rows(*sent["args"], **sent["kwargs"])
    decided = Example.objects.filter(line__lt=7)
    assert decided.count() == (6 if found else 0)
    assert decided.filter(**found or {}).count() == decided.count()
    assert Example.objects.get(line=7).status == "pending"


def test_label_that_cannot_be_is_refused_before_a_worker_is_told(api, dataset, twenty, monkeypatch):
    monkeypatch.setattr(bulk_review, "AT_ONCE", 5)
    body = {"action": "relabel", "label": "good", "filter": {}}
    assert api("POST", f"/{twenty.pk}/examples/bulk", body).status_code == 400
    assert waiting() == []


def test_rows_of_another_dataset_are_not_reached(api, twenty, curator):
    other = fill(datasets.create_dataset("B", user=curator), [chat_draft(1)])
    row = Example.objects.get(dataset=other)
    assert api("GET", f"/{twenty.pk}/examples/{row.pk}").status_code == 404
    assert bulk(api, twenty, action="delete", ids=[row.pk]) == (0, True)
    upload = datasets.start_upload(other, file_name="a.jsonl", size=10, user=curator)
    assert api("GET", f"/{twenty.pk}/imports/{upload.pk}").status_code == 404


def test_rows_are_relabelled(api, dataset):
    fill(dataset, [labelled_draft(number, "good") for number in range(3)])
    assert bulk(api, dataset, action="relabel", filter={"label": "good"}, label="bad") == (3, True)
    row = Example.objects.first()
    assert api("PATCH", f"/{dataset.pk}/examples/{row.pk}", {"label": "fine"}).json()["label"] == "fine"


def test_version_is_frozen_exported_and_compared(api, twenty):
    made = api("POST", f"/{twenty.pk}/versions", {"seed": 7, "shares": {"validation": 0.2}})
    assert (made.status_code, made.json()["status"], made.json()["number"]) == (201, "freezing", 1)
    assert api("GET", f"/{twenty.pk}/versions/1/export").status_code == 400
    datasets.freeze_version(DatasetVersion.objects.get().pk)
    version = api("GET", f"/{twenty.pk}/versions/1").json()
    assert (version["status"], version["counts"]) == ("ready", {"train": 16, "validation": 4, "test": 0})
    again = api("POST", f"/{twenty.pk}/versions", {"seed": 7, "shares": {"validation": 0.2}})
    assert (again.status_code, again.json()["code"], again.json()["fields"]) == (409, "unchanged", {"version": 1})
    fill(twenty, [chat_draft(50)])
    datasets.freeze_now(twenty, user=None, seed=7, shares={"validation": 0.2})
    difference = api("GET", f"/{twenty.pk}/versions/2/diff").json()
    assert (difference["old"], difference["new"], difference["added"], difference["removed"]) == (1, 2, 1, 0)
    assert difference["added_rows"][0]["content"] == chat_row(50)
    assert [item["number"] for item in api("GET", f"/{twenty.pk}/versions").json()["items"]] == [2, 1]


@pytest.fixture
def large_version(transactional_db, admin_user) -> tuple[str, str]:
    """The address of an export of 1,200 rows, and a key."""
    made = fill(datasets.create_dataset("Rivers", user=admin_user), map(chat_draft, range(1200)))
    datasets.freeze_now(made, user=admin_user)
    return f"/api/datasets/{made.pk}/versions/1/export", f"Bearer {ApiKey.create_for(admin_user)[1]}"


async def test_export_is_sent_in_pieces(large_version, async_client):
    address, key = large_version
    response = await async_client.get(address, headers={"Authorization": key})
    pieces = [piece async for piece in response.streaming_content]
    assert len(pieces) == 3
    rows = [json.loads(line) for line in b"".join(pieces).splitlines()]
    assert len(rows) == 1200
    assert set(rows[0]) == {"messages"}
    assert "attachment" in response["Content-Disposition"]
    refused = await async_client.get(f"{address}?split=holdout", headers={"Authorization": key})
    assert refused.status_code == 400


def test_dataset_is_built_from_conversations(api, alice):
    from django.utils import timezone

    type(alice).objects.filter(pk=alice.pk).update(training_consent_at=timezone.now())
    talk = make_conversation(alice, "Rivers", "Which river is longest?", "The Nile.")
    feedback.rate(talk.current_leaf, rating=1)
    assert api("POST", "/from-conversations/count", {"filters": {"kind": "chat"}}).json() == {"count": 1}
    made = api("POST", "/from-conversations", {"name": "Good answers", "filters": {"kind": "chat"}})
    assert (made.status_code, made.json()["import"]["source"]) == (201, "conversations")
    datasets.run_import(uuid.UUID(made.json()["import"]["id"]))
    row = Example.objects.get()
    assert (row.status, row.contributor_id, row.conversation_id) == ("pending", alice.pk, talk.pk)
    assert api("POST", "/from-conversations/count", {"filters": {"mood": "x"}}).status_code == 400
    assert api("POST", "/from-conversations", {"filters": {}}).status_code == 400


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_member_is_forbidden(alice, twenty, method):
    member = Api(alice)
    body = {"name": "Mine"} if method == "POST" else None
    refused = member(method, "", body)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert member("GET", f"/{twenty.pk}").status_code == 403
    assert member("PUT", f"/{twenty.pk}/parts/1", b"x").status_code == 403


def test_anonymous_is_asked_who_it_is(client, twenty):
    assert client.get("/api/datasets").status_code == 401
    assert client.put(f"/api/datasets/{twenty.pk}/parts/1", b"x").status_code == 401
