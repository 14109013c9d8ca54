"""The admin's first page: figures of everybody for admins, and for nobody else."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from chat.models import Feedback
from config.dashboard import figures, page
from tests.chat.conftest import make_conversation, make_message

INDEX = reverse("admin:index")


@pytest.fixture
def week(alice, bob):
    now = timezone.now()
    for number in range(3):
        conversation = make_conversation(alice if number else bob, "T")
        reply = make_message(
            conversation,
            "Yes",
            role="assistant",
            model=f"model-{number % 2}",
            prompt_tokens=10,
            completion_tokens=5,
            first_token_ms=100 * (number + 1),
            created_at=now - timedelta(days=number),
        )
        Feedback.objects.create(message=reply, user=conversation.owner, rating=-1 if number == 2 else 1)
    conversation = make_conversation(alice, "T")
    make_message(conversation, role="assistant", model="model-0", status="failed", error_code="provider_timeout")


def test_figures_tell_of_every_day_without_a_gap(week):
    read = figures.read_figures()
    assert len(read.days) == len(read.replies) == figures.DAYS
    assert read.replies[-3:] == [1, 1, 2]
    assert read.failed[-1] == 1
    assert {name: sum(values) for name, values in read.tokens.items()} == {"model-0": 30, "model-1": 15}
    assert read.failures == {"provider_timeout": 1}
    assert (read.good_ratings, read.bad_ratings, read.active_people) == (2, 1, 2)


def test_an_admin_sees_them_as_charts_and_as_tables(client, week, admin_user):
    client.force_login(admin_user)
    response = client.get(INDEX)
    text = response.content.decode()
    assert "Replies a day" in text
    assert "provider_timeout" in text
    (tokens,) = (chart for chart in response.context["charts"] if chart.title.startswith("Tokens"))
    assert [series["label"] for series in json.loads(tokens.data)["datasets"]] == ["model-0", "model-1"]
    assert tokens.table["rows"][-1][1:] == ["15", "0"]


def test_staff_without_admin_rights_see_no_figures(client, week, alice):
    alice.is_staff = True
    alice.save(update_fields=["is_staff"])
    client.force_login(alice)
    response = client.get(INDEX)
    assert "tiles" not in response.context
    assert "Replies a day" not in response.content.decode()


def test_what_costs_something_is_read_once_a_minute(client, week, admin_user):
    client.force_login(admin_user)
    client.get(INDEX)
    assert cache.get(figures.CACHE_KEY) is not None
    with CaptureQueriesContext(connection) as queries:
        client.get(INDEX)
    assert not [query for query in queries if "TruncDate" in query["sql"] or "first_token_ms" in query["sql"]]


def test_admin_has_the_icon_of_the_pages(client, admin_user):
    client.force_login(admin_user)
    assert '<link rel="icon" href="/static/img/favicon.svg" type="image/svg+xml"' in client.get(INDEX).content.decode()


def test_an_empty_installation_has_a_dashboard_too(client, admin_user):
    client.force_login(admin_user)
    response = client.get(INDEX)
    assert response.status_code == 200
    assert "Nothing yet in these two weeks." in response.content.decode()


def test_models_beyond_the_colours_are_shown_together(week):
    tokens = {f"model-{number}": [10 - number] for number in range(9)}
    shown = page._most_used(tokens)
    assert len(shown) == page.MANY_MODELS
    assert sum(map(sum, shown.values())) == sum(map(sum, tokens.values()))


def test_folders_are_measured_without_following_links(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to(tmp_path / "inner" / "file")
    assert figures.folder_size(tmp_path) == 1000
    assert figures.folder_size(tmp_path / "missing") == 0
