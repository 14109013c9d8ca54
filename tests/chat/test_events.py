"""The wire contract: every frame has its fields and no others, and nothing that arrives can do more than be refused."""

from __future__ import annotations

import json
from dataclasses import fields
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat import events
from chat.errors import (
    BusyError,
    ForbiddenError,
    InvalidError,
    ModelUnavailableError,
    NotFoundError,
    QuotaExceededError,
    RateLimitedError,
    TooLongError,
)
from chat.events import CLIENT_FRAMES, RefusedFrameError, parse_client_frame
from chat.frame_fields import OPTIONS

# The same in every test process: pytest-xdist compares the names of the tests.
ID, OTHER = UUID(int=1), UUID(int=2)
MESSAGE = {"id": str(ID), "conversation_id": str(OTHER), "status": "complete", "content": "é"}
CONVERSATION = {"id": str(OTHER), "title": "T"}
DELTA = {"message_id": "m", "conversation_id": "c", "sequence_number": 1}


def parse(kind: str, **values) -> events.ClientFrame:
    return parse_client_frame(json.dumps({"type": kind, **values}))


def refusal(text: str) -> RefusedFrameError:
    with pytest.raises(RefusedFrameError) as caught:
        parse_client_frame(text)
    return caught.value


# --- what the server says ---------------------------------------------------------------------------------------------

SERVER_FRAMES = [
    (events.ConversationCreated(conversation=CONVERSATION), "conversation.created", {"conversation"}),
    (events.ConversationUpdated(conversation=CONVERSATION), "conversation.updated", {"conversation"}),
    (events.ConversationDeleted(conversation=CONVERSATION), "conversation.deleted", {"conversation"}),
    (
        events.ConversationSubscribed(conversation_id="c", current_leaf_id="m", running=[MESSAGE]),
        "conversation.subscribed",
        {"conversation_id", "current_leaf_id", "running"},
    ),
    (events.MessageCreated(message=MESSAGE), "message.created", {"message"}),
    (events.ReplyStarted(message=MESSAGE, conversation_id="c"), "reply.started", {"message", "conversation_id"}),
    (events.ReplyDelta(**DELTA, text="a"), "reply.delta", {*DELTA, "text"}),
    (events.ReplyDelta(**DELTA, reasoning="a"), "reply.delta", {*DELTA, "reasoning"}),
    (
        events.ReplyDelta(**DELTA, text="", tail={"kind": "code", "language": "py"}),
        "reply.delta",
        {*DELTA, "text", "tail"},
    ),
    (
        events.ReplyBlock(message_id="m", conversation_id="c", index=0, html="<p></p>", length=3),
        "reply.block",
        {"message_id", "conversation_id", "index", "html", "length"},
    ),
    (
        events.MessageFeedback(
            message_id="m",
            conversation_id="c",
            feedback={"rating": 1, "comment": "", "tags": []},
            correction=None,
            is_chosen=False,
        ),
        "message.feedback",
        {"message_id", "conversation_id", "feedback", "correction", "is_chosen"},
    ),
    (events.Pong(), "pong", set()),
    (events.ErrorFrame(code="busy", message="Wait."), "error", {"code", "message"}),
    (
        events.ErrorFrame(code="rate_limited", message="Wait.", retry_after=3),
        "error",
        {"code", "message", "retry_after"},
    ),
    *(
        (events.ReplyEnded(message={**MESSAGE, "status": status}), kind, {"message"})
        for status, kind in {
            "complete": "reply.completed",
            "stopped": "reply.stopped",
            "failed": "reply.failed",
            "interrupted": "reply.interrupted",
        }.items()
    ),
]


@pytest.mark.parametrize(("event", "kind", "names"), SERVER_FRAMES, ids=lambda value: getattr(value, "type", None))
def test_frame_of_the_server_has_these_fields_and_no_others(event, kind, names):
    frame = event.to_dict()
    assert frame["type"] == kind
    assert frame.keys() - {"type"} == names
    assert json.loads(events.encode(event)) == frame == json.loads(events.encode(frame))
    answering = type(event)(**{field.name: getattr(event, field.name) for field in fields(event)} | {"request_id": "r"})
    assert answering.to_dict() == frame | {"request_id": "r"}


def test_every_frame_of_the_server_is_in_this_schema():
    def leaves(frame: type) -> set[type]:
        below = frame.__subclasses__()
        return {frame}.union(*map(leaves, below)) if below else {frame}

    ours = {frame for frame in leaves(events.ServerEvent) if frame.__module__ == events.__name__}
    assert {type(event) for event, _, _ in SERVER_FRAMES} == ours - {events.ServerEvent}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidError("x"), "invalid"),
        (NotFoundError("x"), "not_found"),
        (ForbiddenError("x"), "forbidden"),
        (TooLongError("x", limit=3), "too_long"),
        (QuotaExceededError("x"), "quota_exceeded"),
        (ModelUnavailableError("x"), "model_unavailable"),
        (BusyError("x"), "busy"),
    ],
)
def test_error_frame_carries_its_stable_code(error, code):
    expected = {"type": "error", "code": code, "message": "x", "request_id": "r"}
    assert events.ErrorFrame.of(error, "r").to_dict() == expected


def test_rate_limited_says_when_to_come_back():
    frame = events.ErrorFrame.of(RateLimitedError("x", retry_after=7), None)
    assert frame.to_dict() == {"type": "error", "code": "rate_limited", "message": "x", "retry_after": 7}


# --- what a client says -----------------------------------------------------------------------------------------------

CLIENT_SCHEMA = {
    "message.create": ({"content"}, {"conversation_id", "parent_id", "edit_of", "model", "options"}),
    "reply.create": ({"conversation_id", "parent_id"}, {"model", "options"}),
    "reply.continue": ({"message_id"}, set()),
    "reply.cancel": ({"message_id"}, set()),
    "conversation.select": ({"conversation_id", "message_id"}, set()),
    "conversation.subscribe": ({"conversation_id"}, {"after"}),
    "conversation.unsubscribe": ({"conversation_id"}, set()),
    "ping": (set(), set()),
}
VALUES = {
    "content": "Hello",
    "conversation_id": str(ID),
    "parent_id": str(ID),
    "edit_of": str(ID),
    "message_id": str(ID),
    "model": "slug@3",
    "options": {"temperature": 1, "stop": ["a"], "seed": None},
    "after": {str(OTHER): 3},
}
PARSED = {
    **{name: UUID(str(ID)) for name in ("conversation_id", "parent_id", "edit_of", "message_id")},
    "content": "Hello",
    "model": "slug@3",
    "options": {"temperature": 1.0, "stop": ["a"]},
    "after": {OTHER: 3},
}
DEFAULTS = {
    "conversation_id": None,
    "parent_id": None,
    "edit_of": None,
    "model": None,
    "options": {},
    "after": {},
}


def values_of(kind: str) -> dict[str, object]:
    required, _ = CLIENT_SCHEMA[kind]
    return {name: VALUES[name] for name in required}


def test_every_frame_of_a_client_is_in_this_schema():
    assert CLIENT_SCHEMA.keys() == CLIENT_FRAMES.keys()


@pytest.mark.parametrize("kind", CLIENT_SCHEMA)
def test_client_frame_parses_whole_and_with_its_defaults(kind):
    required, optional = CLIENT_SCHEMA[kind]
    whole = parse(kind, request_id="r", **{name: VALUES[name] for name in required | optional})
    assert vars(whole) == {"request_id": "r", **{name: PARSED[name] for name in required | optional}}
    least = parse(kind, **values_of(kind))
    assert vars(least) == {
        "request_id": None,
        **{name: PARSED[name] for name in required},
        **{name: DEFAULTS[name] for name in optional},
    }


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, (names, _) in CLIENT_SCHEMA.items() for name in sorted(names)]
)
def test_missing_field_is_refused(kind, name):
    values = {key: value for key, value in values_of(kind).items() if key != name}
    error = refusal(json.dumps({"type": kind, "request_id": "r", **values}))
    assert (error.code, error.request_id) == ("invalid", "r")
    assert name in error.message


@pytest.mark.parametrize("kind", CLIENT_SCHEMA)
def test_unknown_field_is_refused(kind):
    error = refusal(json.dumps({"type": kind, "surprise": 1, **values_of(kind)}))
    assert "surprise" in error.message


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, (required, optional) in CLIENT_SCHEMA.items() for name in sorted(required | optional)],
)
@pytest.mark.parametrize("value", [True, 7, 1.5, [], [[]], "\0", "\ud800"], ids=repr)
def test_value_of_a_wrong_kind_is_refused(kind, name, value):
    assert refusal(json.dumps({"type": kind, **values_of(kind), name: value})).code == "invalid"


@pytest.mark.parametrize("name", ["content", "conversation_id", "message_id"])
def test_null_is_no_value_for_a_required_field(name):
    kind = {"content": "message.create", "conversation_id": "reply.create", "message_id": "reply.cancel"}[name]
    assert refusal(json.dumps({"type": kind, **values_of(kind), name: None})).code == "invalid"


@pytest.mark.parametrize("value", ["", "1", "not-an-id", str(ID) + "0", "０" * 31, "\0" * 32])
def test_id_that_is_none_is_refused(value):
    assert refusal(json.dumps({"type": "reply.cancel", "message_id": value})).code == "invalid"


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("temperature", [0, 2, 0.5, 2.0], [-0.0001, 2.0001, "1", True, [], {}, float("nan"), float("inf"), 10**400]),
        ("top_p", [1, 0.001], [0, 0.0, -1, 1.0001, "1", True, float("nan"), float("-inf")]),
        ("max_new_tokens", [1, 1_000_000], [0, -1, 1.0, 1.5, "1", True, 1_000_001, float("inf")]),
        ("seed", [0, -5, 2**63 - 1], [1.5, "1", False, 2**63, -(2**63) - 1, float("nan")]),
        (
            "stop",
            ["a", ["a"], ["a"] * 4, []],
            [["a"] * 5, [1], [None], "", [""], {"a": 1}, 1, True, ["\0"], ["\ud800"]],
        ),
        ("system_prompt", ["", "Be brief."], [1, [], {}, True, "\0", "\udfff", "x" * 100_001]),
    ],
)
def test_option_is_taken_in_its_range_and_refused_beyond_it(name, allowed, refused):
    for value in allowed:
        frame = parse("message.create", content="a", options={name: value})
        assert frame.options == {name: [value] if name == "stop" and isinstance(value, str) else value}
    for value in refused:
        error = refusal(json.dumps({"type": "message.create", "content": "a", "options": {name: value}}))
        assert error.code == "invalid", value
        assert f"options.{name}" in error.message


def test_null_option_is_as_if_it_were_not_there():
    assert parse("message.create", content="a", options=dict.fromkeys(OPTIONS)).options == {}
    assert parse("message.create", content="a", options=None).options == {}


def test_unknown_option_is_refused():
    assert (
        "frequency_penalty"
        in refusal(json.dumps({"type": "message.create", "content": "a", "options": {"frequency_penalty": 1}})).message
    )


@pytest.mark.parametrize("after", [{"x": 1}, {str(ID): -1}, {str(ID): "1"}, {str(ID): None}, {str(ID): True}, [1], "1"])
def test_after_maps_ids_to_numbers(after):
    text = json.dumps({"type": "conversation.subscribe", "conversation_id": str(ID), "after": after})
    assert refusal(text).code == "invalid"


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "{", "nul", "[]", "[{}]", '"ping"', "1", "null", "{}", '{"type": null}', '{"type": ["ping"]}'),
        *("[" * 100_000, '{"a":' * 100_000, '{"type": "ping", "seed": ' + "1" * 5000 + "}", "\ufeff{}", "\ud800"),
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_what_is_no_frame_is_refused(text):
    error = refusal(text)
    assert (error.code, error.request_id) == ("invalid", None)


@pytest.mark.parametrize("request_id", ["x" * 65, 1, True, [], {}, "\0", "\ud800"], ids=repr)
def test_bad_request_id_is_refused_and_not_repeated(request_id):
    error = refusal(json.dumps({"type": "ping", "request_id": request_id}))
    assert error.request_id is None


@pytest.mark.parametrize("name", ["\ud800", "\0", "x" * 100_000, "漢"], ids=lambda name: ascii(name[:5]))
@pytest.mark.parametrize("where", ["frame", "options"])
def test_name_of_an_unknown_field_can_be_answered_whatever_it_is(name, where):
    more = {name: 1} if where == "frame" else {"options": {name: 1}}
    error = refusal(json.dumps({"type": "message.create", "content": "a", **more}))
    answer = events.encode(events.ErrorFrame.of(error, None))
    assert len(answer.encode()) < 500


def test_request_id_counts_characters_not_bytes():
    assert parse("ping", request_id="漢" * 64).request_id == "漢" * 64


# --- anything at all --------------------------------------------------------------------------------------------------

any_text = st.text(st.characters(codec=None), max_size=30)  # lone surrogates too
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
any_name = st.sampled_from(sorted({*VALUES, *OPTIONS, "request_id", "type"})) | any_text
valid_frames = st.sampled_from(sorted(CLIENT_SCHEMA)).map(lambda kind: {"type": kind, **values_of(kind)})
# A valid frame with one or two fields changed or added: it gets far before it is refused.
near_frames = st.builds(
    lambda frame, changes, options: frame | changes | ({"options": options} if options else {}),
    valid_frames,
    st.dictionaries(any_name, any_json, max_size=2),
    st.dictionaries(any_name, any_json, max_size=2),
)


def parse_or_refuse(text: str) -> None:
    """The frame or its refusal; either can be answered on the wire."""
    try:
        frame = parse_client_frame(text)
    except RefusedFrameError as error:
        assert error.code == "invalid"
        answer = events.ErrorFrame.of(error, error.request_id)
    else:
        answer = events.Pong(request_id=frame.request_id)
    assert json.loads(events.encode(answer).encode()) == answer.to_dict()


@given(any_text)
def test_any_text_is_parsed_or_refused(text):
    parse_or_refuse(text)


@given(any_json)
def test_any_json_is_parsed_or_refused(value):
    parse_or_refuse(json.dumps(value))


@given(near_frames)
def test_anything_near_a_frame_is_parsed_or_refused(value):
    parse_or_refuse(json.dumps(value))
