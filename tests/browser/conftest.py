"""A real Chromium. Package-wide and no longer: while Playwright runs, no other test could have an event loop."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.browser.site import NAME, PASSWORD, Site
from tests.support.chromium import ARGUMENTS, CHROMIUM

# What the browser itself says while the network or the server is away, and htmx of a request that a newer one replaces
# or a closed page ends. A request that failed is an htmx:sendError or htmx:responseError besides, and is complained of.
EXPECTED = (
    "ERR_INTERNET_DISCONNECTED",
    "ERR_CONNECTION",
    "WebSocket connection",
    "htmx:sendAbort",
    "htmx:afterRequest",
)
PATIENCE_MS = 20_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    if not shutil.which(CHROMIUM):
        pytest.skip(f"{CHROMIUM} is not installed")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"), redis_url=settings.REDIS_URL)
    yield site
    site.stop()


@pytest.fixture(scope="package")
def signed_in(chromium: Browser, site: Site) -> dict:
    """The cookies of somebody who signed in by the form."""
    context = chromium.new_context(base_url=site.address)
    page = context.new_page()
    page.goto("/accounts/login/")
    page.get_by_label("User name or e-mail").fill(NAME)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_label("Message", exact=True)).to_be_visible()
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def complaints() -> list[str]:
    """Errors of any page of the test; there may be none at its end."""
    return []


@pytest.fixture
def context(chromium: Browser, site: Site, signed_in: dict, complaints: list[str]) -> Iterator[BrowserContext]:
    context = chromium.new_context(base_url=site.address, storage_state=signed_in)
    context.set_default_timeout(PATIENCE_MS)

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and not any(words in message.text for words in EXPECTED):
            complaints.append(message.text)

    context.on("console", note)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    yield context
    context.close()
    assert complaints == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    page = context.new_page()
    page.goto("/")
    return page
