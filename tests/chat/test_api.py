"""`/api/conversations`: what it answers to the owner, and that it knows nobody else."""

from __future__ import annotations

import pytest

from accounts.models import ApiKey
from chat.models import Conversation, Message
from tests.chat.conftest import make_conversation, make_message

URL = "/api/conversations"
JSON = "application/json"


@pytest.fixture
def mine(client, alice):
    client.force_login(alice)
    return client


def test_list_is_paged(mine, alice):
    for number in range(5):
        make_conversation(alice, f"Talk {number}", "Hi")
    seen, cursor = [], ""
    for expected in (2, 2, 1):
        page = mine.get(URL, {"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["items"]) == expected
        seen += [item["title"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert sorted(seen) == [f"Talk {number}" for number in range(5)]


def test_search_tells_where_the_words_are(mine, talk, alice):
    make_conversation(alice, "Other", "Nothing here")
    (item,) = mine.get(URL, {"q": "nile"}).json()["items"]
    assert item["id"] == str(talk.id)
    assert item["found"]["snippet"] == [
        {"text": "The ", "is_hit": False},
        {"text": "Nile", "is_hit": True},
        {"text": ".", "is_hit": False},
    ]
    assert Message.objects.get(id=item["found"]["message_id"]).content == "The Nile."


def test_conversation_comes_with_the_end_of_its_branch(mine, talk):
    reply = talk.current_leaf
    other = make_message(talk, "The Danube.", role="assistant", parent=reply.parent, status="failed", error_code="x")
    data = mine.get(f"{URL}/{talk.id}", {"limit": 2}).json()
    assert data["title"] == "Rivers"
    assert [message["content"] for message in data["messages"]] == ["And in Europe?", "The Volga."]
    assert data["messages"][1]["sibling_ids"] == [str(reply.id), str(other.id)]
    assert data["before"] == data["messages"][0]["id"]
    above = mine.get(f"{URL}/{talk.id}", {"before": data["before"]}).json()
    assert [message["content"] for message in above["messages"]] == ["Which river is longest?", "The Nile."]
    assert above["before"] is None
    branch = mine.get(f"{URL}/{talk.id}", {"leaf": str(other.id)}).json()
    assert branch["messages"][-1]["error"] == {"code": "x", "message": "", "retryable": False}


def test_reading_a_long_conversation_takes_few_queries(mine, alice, django_assert_max_num_queries):
    long = make_conversation(alice, "Long", *(f"Text {number}" for number in range(120)))
    mine.get(URL)  # the first request of a session writes down where it is open
    with django_assert_max_num_queries(6):
        assert len(mine.get(f"{URL}/{long.id}").json()["messages"]) == 100


def test_patch_changes_only_what_is_sent(mine, talk):
    answer = mine.patch(f"{URL}/{talk.id}", {"title": "Streams", "options": {"temperature": 0.5}}, content_type=JSON)
    assert answer.status_code == 200
    assert answer.json()["title"] == "Streams"
    talk.refresh_from_db()
    assert (talk.title, talk.options, talk.model, talk.pinned_at) == ("Streams", {"temperature": 0.5}, "tiny", None)
    assert mine.patch(f"{URL}/{talk.id}", {"pinned": True}, content_type=JSON).json()["pinned"] is True


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"title": ""}, "invalid"),
        ({"title": "a\u0000"}, "invalid"),
        ({"title": 3}, "invalid"),
        ({"title": "x" * 201}, "too_long"),
        ({"colour": "red"}, "invalid"),
        ({"options": {"top_p": 0}}, "invalid"),
        ({"model": "nobody-knows"}, "model_unavailable"),
        ([], "invalid"),
    ],
)
def test_bad_change_is_refused_and_changes_nothing(mine, talk, body, code):
    before = Conversation.objects.filter(id=talk.id).values().get()
    answer = mine.patch(f"{URL}/{talk.id}", body, content_type=JSON)
    assert answer.json()["code"] == code
    assert answer.status_code >= 400
    assert Conversation.objects.filter(id=talk.id).values().get() == before


def test_delete_can_be_taken_back(mine, talk):
    assert mine.delete(f"{URL}/{talk.id}").status_code == 204
    assert mine.get(f"{URL}/{talk.id}").status_code == 404
    assert mine.delete(f"{URL}/{talk.id}").status_code == 404
    assert mine.get(URL).json()["items"] == []
    assert mine.post(f"{URL}/{talk.id}/restore").json()["id"] == str(talk.id)
    assert mine.get(f"{URL}/{talk.id}").status_code == 200
    assert mine.post(f"{URL}/{talk.id}/restore").status_code == 404


def every_call(client, talk):
    url = f"{URL}/{talk.id}"
    return [
        client.get(url),
        client.patch(url, {"title": "Mine now"}, content_type=JSON),
        client.delete(url),
        client.post(f"{url}/restore"),
    ]


@pytest.mark.parametrize("who", ["bob", "charlie", "admin_user"])
def test_others_get_not_found_and_change_nothing(client, talk, who, request):
    client.force_login(request.getfixturevalue(who))
    before = Conversation.objects.filter(id=talk.id).values().get()
    for answer in every_call(client, talk):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert client.get(URL).json()["items"] == client.get(URL, {"q": "nile"}).json()["items"] == []
    assert Conversation.objects.filter(id=talk.id).values().get() == before


def test_other_persons_message_is_no_way_in(mine, talk, bob):
    theirs = make_conversation(bob, "Bob's", "Secret")
    for name in ("leaf", "before"):
        assert mine.get(f"{URL}/{talk.id}", {name: str(theirs.current_leaf_id)}).status_code == 404


def test_anonymous_is_told_to_sign_in(client, talk):
    for answer in [client.get(URL), *every_call(client, talk)]:
        assert answer.status_code == 401


def test_api_key_opens_its_owners_conversations_only(client, talk, bob, alice):
    for user, status in ((alice, 200), (bob, 404)):
        _key, plain = ApiKey.create_for(user)
        assert client.get(f"{URL}/{talk.id}", headers={"Authorization": f"Bearer {plain}"}).status_code == status


@pytest.mark.parametrize("query", ["cursor=nonsense", "q=x&cursor=nonsense", "limit=0", "limit=1000", "limit=x"])
def test_bad_page_is_invalid(mine, query):
    answer = mine.get(f"{URL}?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")


def test_id_that_is_none_is_not_found(mine):
    assert mine.get(f"{URL}/nonsense").status_code == 404
