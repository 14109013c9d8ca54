"""One round: replies stream to several watchers, something is killed, and everything is looked at afterwards."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.kill.browser import Browser, PageWatcher, send_by_page
from tests.kill.ground import MODEL, kept_reply, wait_until_back
from tests.kill.watcher import RefusedError, Seen, Watcher
from tests.support.product import Product
from tests.support.upstream import answer_text

BROWSER = "browser"
# Joined by +: killed at the same moment.
VICTIMS = ("web", "engine", "worker-default", "worker-training", "beat", "valkey", BROWSER, "web+valkey")
ENGINE_MODEL = "smollm2-135m-instruct"
WATCHERS = 3
# What is promised, in seconds.
WORKS_WITHIN = 15.0
SAID_WITHIN = 15.0
PATIENCE = 90.0
# As somebody who reads that it failed, and presses "Try again".
ASK_AGAIN_AFTER = 3.0


@dataclass
class Question:
    text: str
    answer: str
    model: str = MODEL

    def fault_of(self, kept: dict[str, Any], victims: set[str]) -> str:
        """Only the death of the process that runs a reply, or of its model, may cost it its end; never its words."""
        allowed = {"complete", *(["interrupted"] if "web" in victims else [])}
        if self.model == ENGINE_MODEL:
            return "" if kept["status"] in {*allowed, "failed"} else f"ended {kept['status']}"
        if kept["status"] not in allowed:
            return f"ended {kept['status']}"
        is_whole = kept["content"] == self.answer
        is_right = is_whole if kept["status"] == "complete" else self.answer.startswith(kept["content"])
        return "" if is_right else "is kept with words the model never said, or without some it did"


def make_questions(victims: set[str], rng: random.Random) -> list[Question]:
    """The first answers in plain words, which a page can be compared with."""
    questions = []
    for kind in ("words", *rng.choices(("words", "markdown", "multibyte"), k=3)):
        tokens, rate = rng.randint(30, 90), rng.choice((15, 25, 40))
        questions.append(Question(f"[[tokens={tokens} rate={rate} text={kind}]] Tell me.", answer_text(tokens, kind)))
    if "engine" in victims:
        questions.append(Question("Tell me about rivers.", "", ENGINE_MODEL))
    return questions


@dataclass
class Outcome:
    """What came of a round, in seconds after the kill."""

    victim: str
    moment: float
    faults: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    """Promises of time that were broken."""
    back: float = 0.0
    works: float = 0.0
    said: float | None = None
    """The last `interrupted`, after the process was back."""
    statuses: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        said = "" if self.said is None else f"  interrupted said {self.said:5.2f} s after that"
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(self.statuses.items()))
        return (
            f"{self.victim:<15} killed at {self.moment:4.0%}  back {self.back:5.2f} s  next message {self.works:5.2f} s"
            f"  {statuses}{said}" + "".join(f"\n    FAULT {fault}" for fault in (*self.faults, *self.late))
        )


class Round:
    """Without a browser nothing watches on a page, and the browser cannot be the victim."""

    def __init__(
        self,
        product: Product,
        session: aiohttp.ClientSession,
        browser: Browser | None,
        *,
        victim: str,
        rng: random.Random,
    ) -> None:
        self._product = product
        self._session = session
        self._browser = browser
        self._victims = set(victim.split("+"))
        self._questions = make_questions(self._victims, rng)
        self._outcome = Outcome(victim, rng.random())
        self._watchers: list[Watcher] = []
        self._replies: dict[str, Question] = {}
        self._page: PageWatcher | None = None

    async def play(self) -> Outcome:
        async with AsyncExitStack() as stack:
            if BROWSER in self._victims:
                await self._open_browser()
            self._watchers = [await self._new_watcher(stack) for _ in range(WATCHERS)]
            asks = [asyncio.create_task(self._ask(question)) for question in self._questions]
            await self._reach(self._outcome.moment)
            killed_at = time.monotonic()
            back = await self._kill(killed_at)
            await self._watchers[1].drop()  # somebody is always just coming back
            await self._in_time("the next message works", self._next_message(stack))
            self._outcome.works = time.monotonic() - killed_at
            await self._in_time("the questions are taken, and the page shows the end", asyncio.gather(back, *asks))
            await self._in_time("every reply ends", asyncio.gather(*self._ends()))
            late = await self._new_watcher(stack)
            await self._catch_up(late)
            for message_id in self._replies:
                await self._judge(message_id, late, killed_at)
        self._judge_times()
        await asyncio.to_thread(self._product.wait_until_ready)
        return self._outcome

    async def _new_watcher(self, stack: AsyncExitStack) -> Watcher:
        return await stack.enter_async_context(Watcher(self._session, self._product.address))

    async def _ask(self, question: Question) -> None:
        """And let everybody watch."""
        first, *others = self._watchers
        reply = await first.ask(question.text, model=question.model, options={"max_new_tokens": 100})
        self._replies[reply["id"]] = question
        for watcher in others:
            await watcher.watch(reply)
        if self._browser and question is self._questions[0]:
            self._page = PageWatcher(self._browser, reply)
            await self._page.watch()

    async def _reach(self, share: float) -> None:
        """Until somebody has seen this share of one of the answers; a small one is right after the asking."""
        watcher = self._watchers[-1]

        def is_reached() -> bool:
            return any(
                len(watcher.seen[message_id].text) >= share * len(question.answer)
                for message_id, question in self._replies.items()
                if question.answer and message_id in watcher.seen
            )

        if share >= 0.1:
            await watcher.wait(is_reached)

    async def _kill(self, killed_at: float) -> asyncio.Future[Any]:
        """Returns what is done when all of them are back."""
        if BROWSER in self._victims:
            assert self._browser is not None
            self._browser.kill()
            returning: Callable[[], Awaitable[Any]] = self._open_browser
        else:
            pids = await asyncio.to_thread(self._product.pids)
            for name in self._victims:
                os.kill(pids[name], signal.SIGKILL)

            async def returning() -> None:
                for name in self._victims:
                    await asyncio.to_thread(wait_until_back, self._product, name, pids[name])

        async def note() -> None:
            await returning()
            self._outcome.back = time.monotonic() - killed_at

        return asyncio.ensure_future(note())

    async def _open_browser(self) -> None:
        assert self._browser is not None
        page = await self._browser.page()
        await page.close()

    async def _next_message(self, stack: AsyncExitStack) -> None:
        """As a person does it: send, and if that fails, send again."""
        if BROWSER in self._victims and self._browser:
            return await send_by_page(self._browser, "[[tokens=3]]")
        watcher = await self._new_watcher(stack)
        model, content = (ENGINE_MODEL, "Hi") if "engine" in self._victims else (MODEL, "[[tokens=3]]")
        while True:
            try:
                reply = await watcher.ask(content, model=model, options={"max_new_tokens": 4})
                end = await watcher.wait_for_end(reply["id"])
            except RefusedError:
                end = {}
            if end.get("status") == "complete":
                return None
            await asyncio.sleep(ASK_AGAIN_AFTER)

    async def _in_time(self, what: str, work: Awaitable[Any]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await work
        except TimeoutError:
            self._outcome.faults.append(f"not within {PATIENCE:.0f} s: {what}")

    def _ends(self) -> list[Awaitable[Any]]:
        return [watcher.wait_for_end(message_id) for watcher in self._watchers for message_id in self._replies]

    async def _catch_up(self, late: Watcher) -> None:
        """Somebody who comes when all is over is told everything."""
        for message_id in self._replies:
            await late.watch({"id": message_id, "conversation_id": self._watchers[0].seen[message_id].conversation_id})
        await self._in_time("a late watcher is told", asyncio.gather(*map(late.wait_for_end, self._replies)))

    async def _judge(self, message_id: str, late: Watcher, killed_at: float) -> None:
        question, outcome = self._replies[message_id], self._outcome
        kept = await asyncio.to_thread(kept_reply, self._product, message_id)
        outcome.statuses[kept["status"]] += 1
        if fault := question.fault_of(kept, self._victims):
            outcome.faults.append(f"{message_id} {fault}")
        for number, watcher in enumerate([*self._watchers, late]):
            seen = watcher.seen.get(message_id, Seen(""))
            outcome.faults += [f"{message_id} watcher {number}: {fault}" for fault in faults_of(seen, kept)]
            if kept["status"] == "interrupted" and seen.end and watcher is not late:
                outcome.said = max(outcome.said or 0.0, seen.ended_at - killed_at - outcome.back)
        if self._page and question is self._questions[0]:
            outcome.faults += [f"{message_id} page: {fault}" for fault in faults_of_page(self._page, kept)]

    def _judge_times(self) -> None:
        outcome = self._outcome
        if outcome.works > WORKS_WITHIN:
            outcome.late.append(f"the next message worked only after {outcome.works:.1f} s")
        if outcome.said is not None and outcome.said > SAID_WITHIN:
            outcome.late.append(f"interrupted was said only after {outcome.said:.1f} s")


def faults_of(seen: Seen, kept: dict[str, Any]) -> list[str]:
    """Deltas that were lost, repeated, reordered or are not kept."""
    faults = list(seen.faults)
    if seen.end is None:
        return [*faults, "was told no end"]
    if not kept["content"].startswith(seen.text):
        faults.append(f"saw words that are not kept: {seen.text[-40:]!r} of {kept['content'][-40:]!r}")
    if seen.text != kept["content"] or seen.last != kept["last_sequence_number"]:
        numbers = f"delta {seen.last} of {kept['last_sequence_number']}"
        faults.append(f"saw {len(seen.text)} of {len(kept['content'])} characters, {numbers}")
    if (seen.end["status"], seen.end["content"]) != (kept["status"], kept["content"]):
        faults.append(f"was told {seen.end['status']}, kept is {kept['status']}")
    html = "".join(seen.blocks[index] for index in sorted(seen.blocks))
    if not kept["html"].startswith(html) or (kept["status"] == "complete" and html != kept["html"]):
        faults.append("was shown other blocks than are kept")
    return faults


def faults_of_page(page: PageWatcher, kept: dict[str, Any]) -> list[str]:
    faults = list(page.faults)
    if page.status != kept["status"]:
        faults.append(f"showed {page.status or 'nothing'}, kept is {kept['status']}")
    words = " ".join(kept["content"].split())
    if not page.shown or page.shown[-1] != words or not all(words.startswith(shown) for shown in page.shown):
        faults.append(f"showed {[shown[-40:] for shown in page.shown]}, kept is {words[-40:]!r}")
    return faults
