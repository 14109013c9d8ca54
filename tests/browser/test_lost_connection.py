"""What a tab makes of it when answers were lost on the way, and when other tabs were connected sooner."""

import re

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Route, WebSocketRoute, expect

from tests.browser.chat_page import ask, ask_and_wait, body, expect_end, field, question, reply
from tests.support.upstream import answer_text

WAITS = "Will be sent when the connection is back."
# Tabs leave a message to the tab that wrote it for some seconds.
MAKE_OLDER = """
() => {
  const key = Object.keys(localStorage).find((name) => name.endsWith(':outbox'));
  const entries = JSON.parse(localStorage.getItem(key));
  for (const entry of entries) entry.created_at -= 6000;
  localStorage.setItem(key, JSON.stringify(entries));
}
"""
PENDING = "() => Object.keys(localStorage).find((name) => name.endsWith(':outbox') && localStorage[name] !== '[]')"


class Line:
    """One tab's connection to the server, from its next page on."""

    def __init__(self, page: Page) -> None:
        self.is_deaf = False  # what is said arrives, the answers do not
        self.is_cut = False
        self._ends: list[WebSocketRoute] = []
        self._page = page
        page.route_web_socket("**/ws/chat/", self._connect)

    def drop(self) -> None:
        for end in self._ends:
            end.close()
        self._ends.clear()

    def cut(self) -> None:
        self.is_cut = True
        self.drop()
        expect(self._page.locator("#connection")).to_be_visible()

    def mend(self) -> None:
        self.is_cut = False
        self._page.evaluate("window.dispatchEvent(new Event('online'))")

    def _connect(self, socket: WebSocketRoute) -> None:
        if self.is_cut:
            return socket.close()
        server = socket.connect_to_server()
        server.on_message(lambda text: None if self.is_deaf else socket.send(text))
        self._ends += [socket, server]


@pytest.fixture
def line(page: Page) -> Line:
    line = Line(page)
    page.reload()
    expect(field(page)).to_be_visible()
    return line


def items(page: Page) -> Locator:
    return page.get_by_role("navigation", name="Your conversations").get_by_role("link")


def expect_sent(page: Page, text: str, *, tokens: int, questions: int) -> None:
    expect(page.locator("article.message--user")).to_have_count(questions)
    expect(page.locator("[data-request]")).to_have_count(0)
    expect(body(question(page))).to_have_text(text)
    expect_end(page)
    expect(body(reply(page))).to_have_text(answer_text(tokens).strip())


def expect_ready(page: Page, draft: str = "And then?") -> None:
    field(page).fill(draft)
    expect(page.get_by_role("button", name="Send message")).to_be_enabled()


@pytest.mark.parametrize("comes_back", ["by a reload", "by itself"])
def test_a_first_message_whose_answer_was_lost_opens_its_conversation(
    page: Page, line: Line, context: BrowserContext, comes_back: str
):
    witness = context.new_page()
    witness.goto("/")
    expect(field(witness)).to_be_visible()
    line.is_deaf = True
    text = f"Back {comes_back} [[tokens=6]]"
    ask(page, text)
    expect(items(witness).filter(has_text=text)).to_be_visible()
    expect(page.get_by_text("Sending…")).to_be_visible()
    expect(items(page).filter(has_text=text)).to_have_count(0)
    line.is_deaf = False
    if comes_back == "by a reload":
        page.reload()
    else:
        line.drop()
    expect(page).to_have_url(re.compile(r"/c/[0-9a-f-]{36}/$"))
    expect_sent(page, text, tokens=6, questions=1)
    expect(items(page).filter(has_text=text)).to_have_attribute("aria-current", "page")
    expect_ready(page)
    ask(page, "The next one [[tokens=3]]")
    expect_sent(page, "The next one [[tokens=3]]", tokens=3, questions=2)


def test_what_is_typed_while_the_answer_is_lost_goes_with_the_conversation(page: Page, line: Line):
    line.is_deaf = True
    ask(page, "Lost for a moment [[tokens=3]]")
    expect(page.get_by_text("Sending…")).to_be_visible()
    field(page).fill("half a thought")
    line.is_deaf = False
    line.drop()
    expect_sent(page, "Lost for a moment [[tokens=3]]", tokens=3, questions=1)
    expect(field(page)).to_have_value("half a thought")
    page.reload()
    expect(field(page)).to_have_value("half a thought")


def test_a_lost_first_message_is_listed_also_when_its_writer_has_gone_elsewhere(page: Page, line: Line):
    ask_and_wait(page, "Somewhere else to be")
    page.get_by_role("link", name="New conversation").first.click()
    line.is_deaf = True
    ask(page, "Left behind [[tokens=3]]")
    expect(page.get_by_text("Sending…")).to_be_visible()
    items(page).filter(has_text="Somewhere else to be").first.click()
    expect(body(question(page))).to_have_text("Somewhere else to be")
    line.is_deaf = False
    line.drop()
    expect(items(page).filter(has_text="Left behind")).to_be_visible()
    expect(body(question(page))).to_have_text("Somewhere else to be")


def test_a_message_that_another_tab_sent_takes_its_place(page: Page, line: Line, context: BrowserContext):
    ask_and_wait(page, "Said before")
    line.cut()
    ask(page, "Sent by the other tab [[tokens=5]]")
    expect(page.get_by_text(WAITS)).to_be_visible()
    page.evaluate(MAKE_OLDER)
    other = context.new_page()
    other.goto(page.url)
    expect_sent(other, "Sent by the other tab [[tokens=5]]", tokens=5, questions=2)
    line.mend()
    expect(page.get_by_text(WAITS)).to_have_count(0)
    expect_sent(page, "Sent by the other tab [[tokens=5]]", tokens=5, questions=2)
    expect_ready(page)


def test_a_first_message_that_another_tab_sent_opens_its_conversation(page: Page, line: Line, context: BrowserContext):
    other = context.new_page()
    other.goto("/")
    ask_and_wait(other, "The other tab is busy elsewhere")
    line.cut()
    text = "Begun by the other tab [[tokens=5]]"
    ask(page, text)
    expect(page.get_by_text(WAITS)).to_be_visible()
    page.evaluate(MAKE_OLDER)
    other.reload()
    expect(items(other).filter(has_text=text)).to_be_visible()
    other.wait_for_function(f"!({PENDING})()")
    expect(body(question(other))).to_have_text("The other tab is busy elsewhere")
    line.mend()
    expect(page).to_have_url(re.compile(r"/c/[0-9a-f-]{36}/$"))
    expect_sent(page, text, tokens=5, questions=1)
    expect(items(page).filter(has_text=text)).to_have_attribute("aria-current", "page")
    expect_ready(page)


def test_what_was_asked_elsewhere_meanwhile_is_shown(page: Page, line: Line, context: BrowserContext):
    ask_and_wait(page, "Before the gap")
    line.cut()
    other = context.new_page()
    other.goto(page.url)
    ask(other, "In the gap [[tokens=5]]")
    expect_sent(other, "In the gap [[tokens=5]]", tokens=5, questions=2)
    line.mend()
    expect_sent(page, "In the gap [[tokens=5]]", tokens=5, questions=2)


def test_a_message_that_another_tab_discarded_is_shown_no_more(page: Page, line: Line):
    ask_and_wait(page, "Kept")
    line.cut()
    ask(page, "Thought better of")
    expect(page.get_by_text(WAITS)).to_be_visible()
    page.evaluate(f"localStorage.removeItem(({PENDING})())")
    line.mend()
    expect(page.locator("article.message--user")).to_have_count(1)
    expect(body(question(page))).to_have_text("Kept")
    expect_ready(page)


def test_what_came_between_a_page_and_its_connection_is_shown(page: Page, context: BrowserContext):
    ask_and_wait(page, "One")
    late, held = context.new_page(), []

    def hold(route: Route) -> None:
        route.continue_() if held else held.append(route)

    late.route("**/js/chat*", hold)
    late.goto(page.url, wait_until="commit")
    expect(late.locator("article.message--user")).to_have_count(1)
    ask(page, "Two")
    expect(page.locator("article.message--assistant")).to_have_count(2)
    expect_end(page)
    held[0].continue_()
    expect(late.locator("article.message--user")).to_have_count(2)
    expect_end(late)
