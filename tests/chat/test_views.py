"""The chat pages: who sees them, how much of a long conversation they carry, and that an answer cannot act in them."""

from __future__ import annotations

import json
import re
from uuid import uuid4

import pytest

from chat.models import Conversation
from models_hub.models import Alias, Connection, ModelVersion, RegisteredModel
from tests.chat.conftest import make_conversation, make_message

HTMX = {"HX-Request": "true"}


@pytest.fixture
def mine(client, alice):
    client.force_login(alice)
    client.get("/search/")  # the first request of a session writes down where it is open
    return client


@pytest.fixture
def tiny_model(db):
    connection = Connection.objects.create(name="Here", kind=Connection.Kind.ENGINE)
    model = RegisteredModel.objects.create(slug="tiny", name="Tiny", connection=connection)
    version = ModelVersion.objects.create(model=model, number=1, provider_model="tiny")
    Alias.objects.create(model=model, version=version)
    return model


def page_data(response):
    found = re.search(r'<script id="page-data" type="application/json">(.*?)</script>', response.content.decode(), re.S)
    return json.loads(found[1])


def shown_ids(response):
    return re.findall(r'<article class="message[^>]*data-id="([0-9a-f-]{36})"', response.content.decode())


def urls(talk):
    return [f"/c/{talk.id}/", f"/c/{talk.id}/messages/"]


def test_new_conversation_page_tells_the_script_what_it_needs(mine, alice, tiny_model):
    response = mine.get("/")
    assert response.status_code == 200
    data = page_data(response)
    assert data["conversation"] is None
    assert data["user_id"] == alice.id
    assert data["max_message_chars"] == 100_000
    assert data["default_model"]
    assert [(model["slug"], model["version"]) for model in data["models"]] == [("tiny", 1)]


def test_conversation_page_shows_its_messages_and_the_sidebar(mine, talk, alice, bob):
    other = make_conversation(alice, "Cooking", "Rice?")
    make_conversation(bob, "Bob's secret", "Hush")
    response = mine.get(f"/c/{talk.id}/")
    text = response.content.decode()
    assert page_data(response)["conversation"]["id"] == str(talk.id)
    assert "The Volga." in text
    assert f"/c/{other.id}/" in text
    assert "secret" not in text


def test_reply_without_stored_html_is_rendered(mine, alice):
    talk = make_conversation(alice, "Bold", "Say it", "**loud**")
    assert "<strong>loud</strong>" in mine.get(f"/c/{talk.id}/").content.decode()


def test_question_is_shown_as_text(mine, alice):
    talk = make_conversation(alice, "<i>Title</i>", "<script>alert(1)</script>", "[x](javascript:alert(1))<img src=x>")
    text = mine.get(f"/c/{talk.id}/").content.decode()
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "<i>Title" not in text


def test_long_conversation_comes_in_windows(mine, alice, django_assert_max_num_queries):
    talk = make_conversation(alice, "Long", *(f"Text {number}" for number in range(300)))
    with django_assert_max_num_queries(10):
        response = mine.get(f"/c/{talk.id}/")
    windows = [shown_ids(response)]
    assert len(windows[0]) == 30
    with django_assert_max_num_queries(6):
        response = mine.get(f"/c/{talk.id}/messages/", {"before": windows[0][0]}, headers=HTMX)
    windows.append(shown_ids(response))
    assert len(windows[1]) == 30
    assert not set(windows[0]) & set(windows[1])
    assert "Text 299" not in response.content.decode()


def test_found_message_is_shown_even_far_up_and_on_another_branch(mine, alice):
    talk = make_conversation(alice, "Long", *(f"Text {number}" for number in range(100)))
    first = talk.messages.get(content="Text 0")
    answer = make_message(talk, "Another branch", role="assistant", parent=first)
    far_up = talk.messages.get(content="Text 10")
    response = mine.get(f"/c/{talk.id}/", {"message": str(far_up.id)})
    assert str(far_up.id) in shown_ids(response)
    assert page_data(response)["focus"] == str(far_up.id)
    response = mine.get(f"/c/{talk.id}/", {"message": str(answer.id)})
    assert shown_ids(response) == [str(first.id), str(answer.id)]
    assert Conversation.objects.get(id=talk.id).current_leaf_id == talk.current_leaf_id


def test_search_page_marks_hits_and_htmx_gets_the_fragment(mine, talk):
    whole = mine.get("/search/", {"q": "nile"}).content.decode()
    fragment = mine.get("/search/", {"q": "nile"}, headers=HTMX).content.decode()
    assert "<mark>Nile</mark>" in whole
    assert "<mark>Nile</mark>" in fragment
    assert "<html" in whole
    assert "<html" not in fragment


def test_search_page_without_words_or_hits_is_a_page(mine):
    for query in ("", "nothing like it", '"', "<script>"):
        response = mine.get("/search/", {"q": query})
        assert response.status_code == 200
        assert "<script>&" not in response.content.decode()


@pytest.mark.parametrize("who", ["bob", "charlie", "admin_user"])
def test_others_do_not_find_the_conversation(client, talk, who, request):
    client.force_login(request.getfixturevalue(who))
    for url in urls(talk):
        assert client.get(url).status_code == 404
    assert "Rivers" not in client.get("/").content.decode()
    assert "Rivers" not in client.get("/search/", {"q": "nile"}).content.decode()


def test_anonymous_is_sent_to_sign_in(client, talk):
    for url in ["/", "/search/?q=nile", *urls(talk)]:
        response = client.get(url)
        assert response.status_code == 302
        assert response["Location"].startswith("/accounts/login/")


def test_deleted_conversation_has_no_page(mine, talk):
    mine.delete(f"/api/conversations/{talk.id}")
    for url in urls(talk):
        assert mine.get(url).status_code == 404


def test_wrong_ids_are_not_found(mine, talk, bob):
    theirs = make_conversation(bob, "Bob's", "Hush")
    for name, url in (("message", urls(talk)[0]), ("before", urls(talk)[1])):
        for value in ("nonsense", str(uuid4()), str(theirs.current_leaf_id)):
            assert mine.get(url, {name: value}).status_code == 404
    assert mine.get("/c/nonsense/").status_code == 404
    assert mine.get("/search/", {"q": "x", "cursor": "nonsense"}).status_code == 404


def test_pages_are_for_reading_only(mine, talk):
    for url in ["/", "/search/", *urls(talk)]:
        assert mine.post(url).status_code == 405


def test_an_address_may_ask_for_a_model_that_one_may_use(mine, tiny_model):
    for address, wanted in (("tiny", "tiny"), ("tiny@2", "tiny@2"), ("nobody's", ""), ("@", ""), ("", "")):
        assert page_data(mine.get("/", {"model": address}))["wanted_model"] == wanted
