"""The pages of a model's versions: what members and curators see there, and what curators do."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from django.contrib.auth.models import Group, Permission
from django.utils import timezone

from finetuning.models import Lineage
from finetuning.versions import promote
from models_hub.models import PRODUCTION, AliasEvent, ModelVersion
from tests.finetuning.version_support import add_trained, make_trained_model, rate, write_folders

BASE = "/models/vendor/harbour/versions/"


@pytest.fixture
def model(db, settings, tmp_path):
    settings.DIALOOP = replace(settings.DIALOOP, model_cache_dir=tmp_path)
    return make_trained_model("vendor/harbour")


@pytest.fixture
def trained(model):
    answers = [{"prompt": "Where?", "source": "fixed", "base": "Nowhere", "tuned": "Pier <4>", "tuned_stopped": False}]
    return add_trained(model, answers=answers)


@pytest.fixture
def curator(client, bob):
    bob.user_permissions.add(Permission.objects.get(codename="curate"))
    client.force_login(bob)
    return bob


def page(client, path: str = "") -> str:
    response = client.get(BASE + path)
    assert response.status_code == 200
    # As it is read: without the breaks of the template.
    return re.sub(r"\s+", " ", response.content.decode())


def said(response) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def production(model) -> int:
    return model.aliases.get(name=PRODUCTION).version.number


def test_the_models_page_leads_to_the_versions(client, trained, alice):
    client.force_login(alice)
    assert f'href="{BASE}"' in client.get("/models/").content.decode()


def test_a_member_sees_versions_and_cards_and_nothing_to_press(client, trained, alice):
    rate(trained, alice, 1)
    client.force_login(alice)
    html = page(client) + page(client, "2/") + page(client, "1/")
    assert "Version 2" in html and "Knows the harbour" in html and "no model card" in html
    for word in ("<form method", "Harbour talk", "perplexity", "Perplexity", "Pier", "Who moved what", "rated good"):
        assert word not in html.replace('<form method="post" action="/accounts/logout/">', "")


def test_a_curator_sees_origin_figures_ratings_and_history(client, trained, curator, alice):
    rate(trained, alice, 1, 1, -1, corrections=1)
    html = page(client)
    for text in ("LoRA fine-tuning", "Harbour talk v2", "vendor/harbour@1", "2.250 → <strong>1.500</strong>", "First."):
        assert text in html
    assert re.search(r"rated good: </span>2<.*rated bad: </span>1<.*of 3 replies, 1 corrected", html)
    html = page(client, "2/")
    for text in ("Job of version 2", "learning_rate", "Pier &lt;4&gt;", "Nowhere", "Did not end by itself"):
        assert text in html


def test_who_may_not_use_the_model_finds_nothing(client, model, trained, charlie):
    model.groups.add(Group.objects.create(name="team"))
    client.force_login(charlie)
    for path in ("", "2/", "compare/?version=2"):
        assert client.get(BASE + path).status_code == 404


def test_one_has_to_sign_in(client, trained):
    for path in ("", "2/", "2/export/"):
        assert client.get(BASE + path).url.startswith("/accounts/login/")


def test_what_is_not_there_is_not_found(client, trained, curator):
    for path in ("9/", "compare/?version=9", "compare/?version=x", "2/export/?part=x", "1/export/"):
        assert client.get(BASE + path).status_code == 404


def test_a_curator_promotes_with_a_reason_and_rolls_back_in_one_click(client, model, trained, curator):
    response = client.post(f"{BASE}2/promote/", {"reason": "Better on held-out rows."}, follow=True)
    assert "Version 2 answers from the next message on." in said(response)
    assert production(model) == 2
    html = page(client)
    assert "By bob" in html and "Better on held-out rows." in html
    response = client.post("/models/vendor/harbour/roll-back/", {"version": "2"}, follow=True)
    assert "Version 1 answers again" in said(response)
    event = AliasEvent.objects.first()
    assert (event.actor, event.to_number, event.reason) == (curator, 1, "Rolled back from version 2.")
    response = client.post("/models/vendor/harbour/roll-back/", {"version": "2"}, follow=True)
    assert "moved meanwhile" in said(response)
    assert AliasEvent.objects.count() == 3


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
def test_a_promotion_without_a_proper_reason_says_so(client, model, trained, curator, reason):
    response = client.post(f"{BASE}2/promote/", {"reason": reason}, follow=True)
    assert "reason" in said(response)
    assert production(model) == 1


def test_what_was_not_evaluated_shows_why_it_cannot_be_promoted(client, model, trained, curator):
    ModelVersion.objects.filter(pk=trained.pk).update(evaluated_at=None)
    html = page(client, "2/")
    assert "has not been evaluated yet. Evaluate it" in html
    assert "/promote/" not in html
    assert "not evaluated" in page(client)


def test_a_version_trained_on_withdrawn_data_is_flagged(client, trained, curator, alice):
    Lineage.objects.update(withdrawn_at=timezone.now(), withdrawn_rows=7)
    promote(trained, actor=None, reason="Better.")
    assert "trained on withdrawn data" in page(client)
    html = page(client, "2/")
    assert "withdrawn 7 of the rows" in html and "It is in production." in html
    client.force_login(alice)
    assert "withdrawn" not in page(client) + page(client, "2/")


def test_a_curator_retires_and_deletes(client, model, trained, curator, tmp_path):
    write_folders(trained, tmp_path)
    assert "retired" in said(client.post(f"{BASE}2/retire/", follow=True))
    assert "retired already" in said(client.post(f"{BASE}2/retire/", follow=True))
    response = client.post(f"{BASE}2/delete/", follow=True)
    assert response.redirect_chain == [(BASE, 302)]
    assert not (tmp_path / trained.source).exists()
    response = client.post(f"{BASE}1/delete/", follow=True)
    assert "production points at it" in said(response)
    assert production(model) == 1


def test_export_is_offered_for_what_is_there(client, trained, curator, tmp_path):
    assert "Export" not in page(client, "2/")
    write_folders(trained, tmp_path)
    html = page(client, "2/")
    assert "Export merged" in html and "Export adapter" in html
    response = client.get(f"{BASE}2/export/?part=adapter")
    assert response["Content-Disposition"] == 'attachment; filename="vendor-harbour-2-adapter.zip"'
    assert b"adapter.safetensors" in b"".join(response)


def test_two_versions_stand_side_by_side(client, model, trained, curator):
    add_trained(model, after={"eval_loss": 1.25}, answers=[{"prompt": "Where?", "base": "Nowhere", "tuned": "Pier 5"}])
    html = page(client, "compare/?version=3&other=2")
    for text in ("1.500", "1.250", "Pier &lt;4&gt;", "Pier 5", "different datasets"):
        assert text in html
    html = page(client, "compare/?version=2&other=1")
    for text in ("2.250", "1.500", "Nowhere"):
        assert text in html
    assert "was not asked" not in html
    # By itself: the newest beside what is in production.
    assert "vendor/harbour@1 and vendor/harbour@3" in page(client, "compare/")


def test_two_different_versions_are_offered_to_be_compared(client, model, trained, curator):
    offered = re.compile(r"<option selected>(\d+)</option>")
    assert offered.findall(page(client)) == ["2", "1"]
    promote(trained, actor=None, reason="Better.")
    assert offered.findall(page(client)) == ["2", "1"]


@pytest.mark.parametrize("action", ["versions/2/promote/", "versions/2/retire/", "versions/2/delete/", "roll-back/"])
def test_a_member_may_do_none_of_it(client, model, trained, alice, action):
    client.force_login(alice)
    before = AliasEvent.objects.count()
    assert client.post(f"/models/vendor/harbour/{action}", {"reason": "Mine.", "version": "1"}).status_code == 403
    trained.refresh_from_db()
    assert (trained.retired_at, production(model), AliasEvent.objects.count()) == (None, 1, before)


@pytest.mark.parametrize("path", ["compare/?version=2", "2/export/"])
def test_a_member_does_not_open_what_is_for_curators(client, trained, alice, path):
    client.force_login(alice)
    assert client.get(BASE + path).status_code == 403


def test_a_look_changes_nothing(client, model, trained, curator):
    for path in ("promote", "retire", "delete"):
        assert client.get(f"{BASE}2/{path}/").status_code == 405
    assert client.get("/models/vendor/harbour/roll-back/").status_code == 405


def test_nothing_on_the_pages_breaks_the_content_policy(client, model, trained, curator):
    html = page(client) + page(client, "2/") + page(client, "compare/?version=2")
    assert "style=" not in html
    assert "onclick" not in html
