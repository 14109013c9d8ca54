"""What the tests about people share: a way to set SIGNUP, and sockets' ends recorded at the channel layer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from accounts import services


@pytest.fixture
def set_signup(settings):
    def change(mode: str) -> None:
        settings.DIALOOP = replace(settings.DIALOOP, signup=mode)

    return change


@pytest.fixture
def ended(monkeypatch):
    """What `end_sockets` was asked to end; the closing itself is the socket's own test."""
    calls: list[dict[str, object]] = []
    monkeypatch.setattr(services, "end_sockets", lambda **which: calls.append(which))
    return calls
