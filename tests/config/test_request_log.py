"""What the log of requests says, and what it must not say."""

import io
import json
import logging

import pytest
import structlog
from django.http import HttpResponse
from django.urls import path

from config.logging import build_logging

SECRET_TEXT = "my private words"


def show(request, **found):
    return HttpResponse("shown")


def greet(request):
    return HttpResponse(f"hello {request.user}")


def fail():
    private = SECRET_TEXT
    raise RuntimeError(f"failed with {len(private)} characters")


urlpatterns = [
    path("c/<uuid:conversation_id>/", show),
    path("reset/<key>/", show),
    path("greet/", greet),
    path("healthz", show),
]


@pytest.fixture
def only_the_log(settings):
    """The middleware under test, and what it reads the person from."""
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [
        "config.request_log.request_log",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]


@pytest.fixture(params=["json", "console"])
def logged(request):
    """What our own handler writes, in both formats."""
    formatter = dict(build_logging("debug", request.param)["formatters"]["structured"])
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(formatter.pop("()")(**formatter))
    logger = logging.getLogger("dialoop.test")
    logger.addHandler(handler)
    logger.propagate = False  # pytest's own handler writes into the records
    yield handler.stream.getvalue
    logger.removeHandler(handler)
    logger.propagate = True


def test_request_is_one_line_with_route_ids_status_and_duration(client, caplog, only_the_log):
    conversation = "6f4c9d6e-9f7c-4c3e-8f39-0d3a7f4f2a11"
    with caplog.at_level(logging.INFO, logger="dialoop.request"):
        client.get(f"/c/{conversation}/?q=private+words")
    (record,) = (record for record in caplog.records if record.name == "dialoop.request")
    event = record.msg
    assert event["event"] == "request"
    assert (event["method"], event["route"], event["status"]) == ("GET", "/c/<uuid:conversation_id>/", 200)
    assert event["conversation_id"] == conversation
    assert event["duration_ms"] >= 0
    assert "private" not in str(event)


def test_key_in_a_path_is_not_logged(client, caplog, only_the_log):
    with caplog.at_level(logging.DEBUG):
        client.get("/reset/one-time-key/")
    assert "one-time-key" not in str([record.__dict__ for record in caplog.records])


def test_signed_in_person_is_named_by_id_only(client, alice, caplog, only_the_log):
    client.force_login(alice)
    with caplog.at_level(logging.INFO, logger="dialoop.request"):
        client.get("/greet/")
    (record,) = (record for record in caplog.records if record.name == "dialoop.request")
    assert record.msg["user_id"] == alice.pk
    assert alice.username not in str(record.msg)


def test_log_line_asks_the_database_nothing(client, alice, only_the_log, caplog, django_assert_num_queries):
    client.force_login(alice)
    with caplog.at_level(logging.INFO, logger="dialoop.request"), django_assert_num_queries(0):
        client.get("/reset/key/")
    (record,) = (record for record in caplog.records if record.name == "dialoop.request")
    assert record.msg["user_id"] is None


def test_health_checks_are_quiet(client, caplog, only_the_log):
    with caplog.at_level(logging.INFO, logger="dialoop.request"):
        client.get("/healthz")
    assert not [record for record in caplog.records if record.name == "dialoop.request"]


def test_traceback_leaves_out_what_the_variables_held(logged):
    try:
        fail()
    except RuntimeError:
        logging.getLogger("dialoop.test").exception("it failed")
    text = logged()
    assert "RuntimeError" in text
    assert SECRET_TEXT not in text


def test_both_kinds_of_loggers_write_the_same_line(logged):
    logging.getLogger("dialoop.test").warning("stopped", extra={"seconds": 3})
    structlog.stdlib.get_logger("dialoop.test").warning("stopped", seconds=3)
    lines = logged().splitlines()
    assert len(lines) == 2
    if lines[0].startswith("{"):
        first, second = (json.loads(line) for line in lines)
        del first["timestamp"], second["timestamp"]
        assert first == second == {"event": "stopped", "seconds": 3, "level": "warning", "logger": "dialoop.test"}
    else:
        assert lines[0].split(" ", 1)[1] == lines[1].split(" ", 1)[1]


def test_chatty_libraries_are_quiet(settings):
    loggers = settings.LOGGING["loggers"]
    assert all(loggers[name]["level"] == "WARNING" for name in ("httpx", "httpx2", "daphne"))
