"""The admin sees that there are conversations, and nothing of what was said in them."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from chat.models import Conversation
from tests.chat.conftest import make_conversation

LIST = reverse("admin:chat_conversation_changelist")


@pytest.fixture
def secret(alice):
    return make_conversation(alice, "Secret title", "Secret question", "Secret answer", system_prompt="Secret prompt")


def detail(conversation):
    return reverse("admin:chat_conversation_change", args=[conversation.id])


def test_admin_sees_whose_and_how_many_but_no_text(client, admin_user, secret):
    client.force_login(admin_user)
    for url in (LIST, detail(secret)):
        text = client.get(url).content.decode()
        assert "alice" in text
        assert str(secret.id) in text
        assert "Secret" not in text
    assert ">2<" in client.get(LIST).content.decode().replace("\n", "").replace(" ", "")


def test_searching_the_admin_does_not_look_into_texts(client, admin_user, secret):
    client.force_login(admin_user)
    assert str(secret.id) in client.get(LIST, {"q": "alice"}).content.decode()
    for words in ("Secret", "question"):
        assert detail(secret) not in client.get(LIST, {"q": words}).content.decode()


def test_list_takes_the_same_number_of_queries_for_one_and_for_many(client, admin_user, alice, bob):
    client.force_login(admin_user)
    client.get(LIST)
    counts = []
    for number in (1, 8):
        for index in range(number):
            make_conversation(alice if index % 2 else bob, "T", "Hi")
        with CaptureQueriesContext(connection) as queries:
            client.get(LIST)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_admin_changes_nothing(client, admin_user, secret):
    client.force_login(admin_user)
    before = Conversation.objects.filter(id=secret.id).values().get()
    assert client.post(detail(secret), {"owner": admin_user.id, "model": "x"}).status_code == 403
    assert client.post(reverse("admin:chat_conversation_delete", args=[secret.id]), {"post": "yes"}).status_code == 403
    assert client.get(reverse("admin:chat_conversation_add")).status_code == 403
    assert Conversation.objects.filter(id=secret.id).values().get() == before


@pytest.mark.parametrize("who", ["alice", "charlie"])
def test_others_do_not_get_in(client, secret, who, request):
    client.force_login(request.getfixturevalue(who))
    for url in (LIST, detail(secret)):
        assert client.get(url).status_code == 302


def test_messages_have_no_page_in_the_admin():
    assert {model.__name__ for model in admin.site._registry if model._meta.app_label == "chat"} == {"Conversation"}
