"""A real Chromium that watches a reply, and may be killed like everything else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from playwright.async_api import BrowserContext, Error, Page, async_playwright

from tests.support.chromium import ARGUMENTS, CHROMIUM

LOOK_EVERY = 0.1
OPEN_AGAIN_AFTER = 0.3
STATE = """id => {
    const article = document.querySelector(`article[data-id="${id}"]`);
    const body = article?.querySelector('[data-part="body"]');
    return [article?.dataset.status ?? "", body?.innerText ?? ""];
}"""


def is_installed() -> bool:
    return shutil.which(CHROMIUM) is not None


class Browser:
    """Starts again when it was killed and is needed."""

    def __init__(self, address: str, cookie: str) -> None:
        self._address = address
        self._cookie = cookie
        self._token = uuid4().hex
        self._context: BrowserContext | None = None
        self._launching = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._playwright = await async_playwright().start()
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(Error):
            if self._context is not None and self._context.browser is not None:
                await self._context.browser.close()
        await self._playwright.stop()

    async def page(self) -> Page:
        async with self._launching:
            context = await self._living_context()
        return await context.new_page()

    def kill(self) -> None:
        """SIGKILL its main process; the others go with it. Raises LookupError when it does not run."""
        pids = list(self._pids())
        if not pids:
            raise LookupError("there is no browser to kill")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self._context = None

    def _pids(self) -> Iterator[int]:
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                arguments = command.read_bytes().decode("utf-8", "replace")
                if self._token in arguments and "--type=" not in arguments:
                    yield int(command.parent.name)

    async def _living_context(self) -> BrowserContext:
        if self._context is None or not self._context.browser or not self._context.browser.is_connected():
            arguments = [*ARGUMENTS, f"--token={self._token}"]
            browser = await self._playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
            self._context = await browser.new_context(base_url=self._address)
            await self._context.add_cookies([{"name": "sessionid", "value": self._cookie, "url": self._address}])
        return self._context


class PageWatcher:
    """Looks at one reply on the conversation's page, and notes when a word that was shown is gone."""

    def __init__(self, browser: Browser, reply: dict[str, Any]) -> None:
        self._browser = browser
        self._reply = reply
        self.status = ""
        self.shown: list[str] = []
        """What it showed last, each time it was opened."""
        self.faults: list[str] = []

    async def watch(self) -> None:
        """Until the page shows the end. Opened again only when it, or all of the browser, is gone."""
        while self.status in {"", "pending", "streaming"}:
            try:
                page = await self._open()
                await self._look_until_the_end(page)
                await page.close()
            except Error:
                await asyncio.sleep(OPEN_AGAIN_AFTER)

    async def _open(self) -> Page:
        """Raises Error for a page that came in part only: the server died meanwhile, and a person would reload."""
        page = await self._browser.page()
        missing: list[str] = []
        page.on("requestfailed", lambda request: missing.append(request.url))
        await page.goto(f"/c/{self._reply['conversation_id']}/")
        if missing:
            await page.close()
            raise Error(f"the page lacks {missing}")
        self.shown.append("")
        return page

    async def _look_until_the_end(self, page: Page) -> None:
        while self.status in {"", "pending", "streaming"}:
            status, text = await page.evaluate(STATE, self._reply["id"])
            words = " ".join(text.split())
            if status:
                if not words.startswith(self.shown[-1]):
                    self.faults.append(f"took words back: {self.shown[-1][-30:]!r}, then {words[-30:]!r} ({status})")
                self.shown[-1], self.status = words, status
            await asyncio.sleep(LOOK_EVERY)


async def send_by_page(browser: Browser, text: str) -> None:
    """As a person who opens the browser again: a new conversation, a message, and the whole answer on the page."""
    page = await browser.page()
    await page.goto("/")
    await page.get_by_label("Message", exact=True).fill(text)
    await page.get_by_label("Message", exact=True).press("Enter")
    await page.locator('article[data-status="complete"][data-finish="stop"]').wait_for(timeout=60_000)
    await page.close()
