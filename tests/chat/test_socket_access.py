"""A handshake or a request whose Origin or Host is no address at all is refused, and no error of ours."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.test import Client

from chat.socket_access import find_access, is_own_origin
from tests.chat.support import Socket, cookie_of

BROKEN = ["http://[", "http://]", "https://[::1", "//[", "http://localhost]", "http://[bad]", "null", "http://a:b:c"]


@pytest.mark.parametrize("origin", BROKEN)
async def test_handshake_with_half_an_origin_is_refused(live, origin):
    assert not (await Socket.open(origin=origin)).accepted


@pytest.mark.parametrize("host", ["[", "]", "[::1", "a]b", "local[host", ""])
def test_handshake_with_half_a_host_is_refused(host):
    assert not is_own_origin({"host": host})
    assert not is_own_origin({"host": host, "origin": f"http://{host}"})


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "[::1]"])
def test_handshake_takes_the_addresses_that_the_pages_take(settings, host):
    settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
    assert is_own_origin({"host": host, "origin": f"http://{host}"})


async def test_header_for_a_proxy_does_not_hide_the_session(alice, live):
    cookie = await sync_to_async(cookie_of)(alice)
    headers = {"cookie": cookie, "authorization": "Basic YTpi"}
    access = await sync_to_async(find_access)(headers)
    assert access is not None and access.asker.user_id == alice.pk
    assert await sync_to_async(find_access)(headers | {"authorization": "Bearer wrong"}) is None


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
