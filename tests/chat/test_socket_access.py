"""A handshake or a request whose Origin or Host is no address at all is refused, and no error of ours."""

from __future__ import annotations

import pytest
from django.test import Client

from chat.socket_access import is_own_origin
from tests.chat.support import Socket

BROKEN = ["http://[", "http://]", "https://[::1", "//[", "http://localhost]", "http://[bad]", "null", "http://a:b:c"]


@pytest.mark.parametrize("origin", BROKEN)
async def test_handshake_with_half_an_origin_is_refused(live, origin):
    assert not (await Socket.open(origin=origin)).accepted


@pytest.mark.parametrize("host", ["[", "]", "[::1", "a]b", "local[host", ""])
def test_handshake_with_half_a_host_is_refused(host):
    assert not is_own_origin({"host": host})
    assert not is_own_origin({"host": host, "origin": f"http://{host}"})


@pytest.mark.parametrize("origin", BROKEN)
def test_request_with_half_an_origin_is_refused(alice, origin):
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    for path in ("/api/me/keys", "/settings/profile/"):
        assert client.post(path, headers={"Origin": origin}).status_code in {403, 404}


@pytest.mark.parametrize("host", ["[", "]", "[::1", "a]b", "local[host", "a b"])
def test_request_with_half_a_host_is_refused(client, db, host):
    for path in ("/", "/api/models", "/accounts/login/"):
        assert client.get(path, headers={"Host": host}).status_code == 400
