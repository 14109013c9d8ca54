"""What people think of replies: kept once, told to every tab, and nobody else's business."""

from __future__ import annotations

from uuid import uuid4

import pytest

from chat import feedback
from chat.errors import BusyError, InvalidError, NotFoundError, TooLongError
from chat.models import Choice, Correction, Feedback, Message
from chat.selectors import get_branch, get_message
from chat.serializers import message_to_dict
from tests.chat.conftest import make_conversation, make_message


@pytest.fixture
def reply(talk) -> Message:
    return talk.current_leaf


@pytest.fixture
def told(monkeypatch) -> list[dict]:
    """The frames that were sent to the owner's sockets."""
    frames: list[dict] = []
    monkeypatch.setattr(feedback, "announce", lambda user_id, event: frames.append({"to": user_id, **event.to_dict()}))
    return frames


def find(message: Message) -> Message:
    return get_message(message.id, user=message.conversation.owner)


def test_rating_is_kept_once_and_replaced_whole(reply):
    feedback.rate(reply, rating=-1, comment="  Half of it. ", tags=["incomplete", "wrong", "wrong"])
    kept = Feedback.objects.get()
    assert (kept.rating, kept.comment, kept.tags) == (-1, "Half of it.", ["wrong", "incomplete"])
    assert kept.user == reply.conversation.owner
    judged = feedback.rate(reply, rating=1)
    kept = Feedback.objects.get()
    assert (kept.rating, kept.comment, kept.tags) == (1, "", [])
    assert message_to_dict(judged)["feedback"] == {"rating": 1, "comment": "", "tags": []}


@pytest.mark.parametrize("rating", [0, 2, -2, True, "1", None])
def test_rating_is_good_or_bad_and_nothing_else(reply, rating):
    with pytest.raises(InvalidError):
        feedback.rate(reply, rating=rating)
    assert not Feedback.objects.exists()


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"tags": ["rude"]}, InvalidError),
        ({"comment": "x" * (feedback.COMMENT_LIMIT + 1)}, TooLongError),
        ({"comment": "a\0"}, InvalidError),
        ({"comment": "\ud800"}, InvalidError),
    ],
)
def test_bad_details_are_refused_and_keep_the_rating_that_was(reply, more, error):
    feedback.rate(reply, rating=1, comment="Fine")
    with pytest.raises(error):
        feedback.rate(reply, rating=-1, **more)
    assert Feedback.objects.values_list("rating", "comment").get() == (1, "Fine")


def test_rating_can_be_taken_back_twice(reply):
    feedback.rate(reply, rating=1)
    assert message_to_dict(feedback.unrate(reply))["feedback"] is None
    feedback.unrate(reply)
    assert not Feedback.objects.exists()


def test_correction_stands_beside_the_original(reply):
    judged = feedback.correct(reply, "The **Danube** is second.")
    shown = message_to_dict(judged)
    assert shown["content"] == "The Volga."
    assert shown["correction"]["content"] == "The **Danube** is second."
    assert "<strong>Danube</strong>" in shown["correction"]["html"]
    feedback.correct(reply, "The Volga, 3,530 km.")
    assert Correction.objects.get().content == "The Volga, 3,530 km."
    assert message_to_dict(feedback.remove_correction(reply))["correction"] is None


@pytest.mark.parametrize(
    ("content", "error"),
    [("", InvalidError), ("  \n", InvalidError), ("a\0", InvalidError), ("x" * 100_001, TooLongError)],
)
def test_correction_is_checked_like_a_message(reply, content, error):
    with pytest.raises(error):
        feedback.correct(reply, content)
    assert not Correction.objects.exists()


def test_correction_that_corrects_nothing_is_refused(reply):
    with pytest.raises(InvalidError, match="says the same"):
        feedback.correct(reply, " The Volga.\n")


def test_classifiers_answer_is_rated_but_not_corrected(reply):
    Message.objects.filter(id=reply.id).update(labels=[{"label": "positive", "score": 0.9}])
    feedback.rate(find(reply), rating=-1)
    with pytest.raises(InvalidError, match="label"):
        feedback.correct(find(reply), "negative")


def test_best_answer_is_one_of_several(reply):
    with pytest.raises(InvalidError, match="only answer"):
        feedback.choose(reply)
    other = make_message(reply.conversation, "The Danube.", role="assistant", parent=reply.parent)
    feedback.choose(reply)
    assert (find(reply).is_chosen, find(other).is_chosen) == (True, False)
    feedback.choose(other)
    assert Choice.objects.get().chosen == other
    assert (find(reply).is_chosen, find(other).is_chosen) == (False, True)
    feedback.unchoose(reply)  # it is not the chosen one: the choice stays
    assert Choice.objects.get().chosen == other
    feedback.unchoose(other)
    assert not Choice.objects.exists()


def every_judgement(message: Message):
    return [
        lambda: feedback.rate(message, rating=1),
        lambda: feedback.correct(message, "Better."),
        lambda: feedback.choose(message),
    ]


@pytest.mark.parametrize("status", ["pending", "streaming"])
def test_reply_that_runs_is_not_judged_yet(talk, status):
    question = talk.current_leaf.parent
    running = make_message(talk, "The", role="assistant", parent=question, status=status)
    for judge in every_judgement(running):
        with pytest.raises(BusyError):
            judge()


@pytest.mark.parametrize("status", ["complete", "stopped", "failed", "interrupted"])
def test_reply_that_has_ended_however_is_judged(talk, status):
    ended = make_message(talk, "The", role="assistant", parent=talk.current_leaf.parent, status=status)
    for judge in every_judgement(ended):
        judge()
    assert (Feedback.objects.count(), Correction.objects.count(), Choice.objects.count()) == (1, 1, 1)


def test_own_message_is_not_judged(talk):
    for judge in every_judgement(talk.current_leaf.parent):
        with pytest.raises(InvalidError, match="replies"):
            judge()


@pytest.mark.parametrize("who", ["bob", "charlie", "admin_user"])
def test_others_do_not_even_find_the_message(reply, who, request):
    with pytest.raises(NotFoundError):
        get_message(reply.id, user=request.getfixturevalue(who))


def test_every_change_is_told_once_to_the_owner(reply, told):
    other = make_message(reply.conversation, "The Danube.", role="assistant", parent=reply.parent)
    ids = {"message_id": str(reply.id), "conversation_id": str(reply.conversation_id)}
    frame = {"to": reply.conversation.owner_id, "type": "message.feedback", **ids}
    feedback.rate(reply, rating=1)
    rating = {"rating": 1, "comment": "", "tags": []}
    assert told == [frame | NOTHING | {"feedback": rating}]
    feedback.choose(reply)
    assert told[1:] == [frame | NOTHING | {"feedback": rating, "is_chosen": True}]
    feedback.choose(other)
    assert [(item["message_id"], item["is_chosen"]) for item in told[2:]] == [
        (str(reply.id), False),
        (str(other.id), True),
    ]
    feedback.choose(other)
    assert len(told) == 5


def test_branch_tells_what_was_thought_without_a_query_more(alice, django_assert_num_queries):
    talk = make_conversation(alice, "Long", *(f"Text {number}" for number in range(20)))
    replies = Message.objects.filter(conversation=talk, role="assistant").select_related("conversation")
    for number, reply in enumerate(replies):
        make_message(talk, f"Other {number}", role="assistant", parent=reply.parent)
        feedback.rate(reply, rating=1)
        feedback.correct(reply, "Better.")
        feedback.choose(reply)
    with django_assert_num_queries(2):
        shown = [message_to_dict(message) for message in get_branch(talk, limit=20, leaf=talk.current_leaf_id).messages]
    judged = [message for message in shown if message["role"] == "assistant"]
    assert len(judged) == 10
    assert all(m["feedback"] and m["correction"] and m["is_chosen"] for m in judged)


def test_purged_conversation_takes_its_judgements_along(reply):
    make_message(reply.conversation, "The Danube.", role="assistant", parent=reply.parent)
    for judge in every_judgement(reply):
        judge()
    reply.conversation.delete()
    assert not (Feedback.objects.exists() or Correction.objects.exists() or Choice.objects.exists())


# --- the API ----------------------------------------------------------------------------------------------------------

JSON = "application/json"
DOORS = {
    "feedback": {"rating": -1, "comment": "No.", "tags": ["wrong"]},
    "correction": {"content": "Better."},
    "choice": {},
}
NOTHING = {"feedback": None, "correction": None, "is_chosen": False}


@pytest.fixture
def mine(client, alice):
    client.force_login(alice)
    return client


@pytest.fixture
def two(reply):
    return reply, make_message(reply.conversation, "The Danube.", role="assistant", parent=reply.parent)


@pytest.mark.parametrize("method", ["put", "post"])
@pytest.mark.parametrize("door", DOORS)
def test_api_takes_put_and_post_alike(mine, two, door, method):
    answer = getattr(mine, method)(f"/api/messages/{two[0].id}/{door}", DOORS[door], content_type=JSON)
    assert answer.status_code == 200
    shown = answer.json()
    assert shown["message_id"] == str(two[0].id)
    assert {
        "feedback": shown["feedback"] == {"rating": -1, "comment": "No.", "tags": ["wrong"]},
        "correction": shown["correction"] is not None and shown["correction"]["content"] == "Better.",
        "choice": shown["is_chosen"],
    }[door]
    after = mine.delete(f"/api/messages/{two[0].id}/{door}")
    assert (after.status_code, after.json()) == (200, shown | NOTHING)
    (message,) = mine.get(f"/api/conversations/{two[0].conversation_id}", {"limit": 1}).json()["messages"]
    assert {name: message[name] for name in NOTHING} == NOTHING


def test_choice_needs_no_body(mine, two):
    assert mine.put(f"/api/messages/{two[0].id}/choice").json()["is_chosen"] is True


@pytest.mark.parametrize(
    ("door", "body"),
    [
        ("feedback", {}),
        ("feedback", {"rating": 0}),
        ("feedback", {"rating": True}),
        ("feedback", {"rating": "1"}),
        ("feedback", {"rating": 1, "colour": "red"}),
        ("feedback", {"rating": 1, "tags": ["rude"]}),
        ("feedback", {"rating": 1, "tags": "wrong"}),
        ("feedback", {"rating": 1, "comment": "a\u0000"}),
        ("correction", {}),
        ("correction", {"content": " "}),
        ("correction", {"content": 7}),
    ],
)
def test_api_refuses_what_is_wrong_and_keeps_nothing(mine, two, door, body):
    answer = mine.put(f"/api/messages/{two[0].id}/{door}", body, content_type=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert not Feedback.objects.exists() and not Correction.objects.exists()


def test_api_says_busy_while_the_reply_runs(mine, talk):
    running = make_message(talk, "", role="assistant", parent=talk.current_leaf.parent, status="pending")
    answer = mine.put(f"/api/messages/{running.id}/feedback", {"rating": 1}, content_type=JSON)
    assert (answer.status_code, answer.json()["code"]) == (409, "busy")


@pytest.mark.parametrize("who", ["bob", "charlie", "admin_user"])
def test_api_knows_no_message_of_others(client, two, who, request):
    client.force_login(request.getfixturevalue(who))
    for message_id in (two[0].id, uuid4()):
        for door, body in DOORS.items():
            url = f"/api/messages/{message_id}/{door}"
            for answer in (client.put(url, body, content_type=JSON), client.delete(url)):
                assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert not (Feedback.objects.exists() or Correction.objects.exists() or Choice.objects.exists())


def test_conversation_can_be_kept_out_of_training(mine, talk):
    answer = mine.patch(f"/api/conversations/{talk.id}", {"is_excluded_from_training": True}, content_type=JSON)
    assert answer.json()["is_excluded_from_training"] is True
    talk.refresh_from_db()
    assert talk.is_excluded_from_training
    answer = mine.patch(f"/api/conversations/{talk.id}", {"is_excluded_from_training": False}, content_type=JSON)
    assert answer.json()["is_excluded_from_training"] is False


def test_reply_that_has_just_been_made_is_not_asked_about(talk, django_assert_num_queries):
    running = make_message(talk, "", role="assistant", parent=talk.current_leaf.parent, status="pending")
    with django_assert_num_queries(0):
        assert message_to_dict(running)["feedback"] is None


def test_every_call_of_the_reference_has_its_own_name(client):
    paths = client.get("/api/openapi.json").json()["paths"]
    names = [call["operationId"] for path, calls in paths.items() if "/messages/" in path for call in calls.values()]
    assert len(names) == len(set(names)) == 9
