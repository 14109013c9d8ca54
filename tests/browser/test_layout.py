"""Long conversations stay small, the reader is left alone, and everything works by keyboard, by ear and on a phone."""

import re

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.chat_page import ask, ask_and_wait, body, expect_end, field, reply

LONG = """
import django
django.setup()
from accounts.models import User
from chat.models import Conversation, Message
anna = User.objects.get(username="anna")
conversation = Conversation.objects.create(owner=anna, title="Three hundred", model="scripted")
parent = None
for number in range(300):
    role = "assistant" if number % 2 else "user"
    text = f"Reply {number}" if number % 2 else f"Question {number}"
    fields = {"finish_reason": "stop", "model": "scripted"} if number % 2 else {}
    parent = Message.objects.create(
        conversation=conversation, parent=parent, depth=number, role=role, content=text, **fields
    )
conversation.current_leaf = parent
conversation.save()
print(conversation.id)
"""
NODES = "document.querySelectorAll('*').length"
UNNAMED = """
() => [...document.querySelectorAll('a[href], button, input, textarea, select, summary, [role=dialog]')]
  .filter((node) => node.checkVisibility() && !node.closest('template'))
  .filter((node) => !(node.ariaLabel || node.labels?.length || node.innerText?.trim()))
  .filter((node) => !node.hasAttribute('aria-labelledby'))
  .map((node) => node.outerHTML)
"""
SMALL = """
() => [...document.querySelectorAll('a.button, button, summary, textarea')]
  .filter((node) => node.checkVisibility({visibilityProperty: true, opacityProperty: true}))
  .map((node) => [node.getBoundingClientRect(), node.outerHTML])
  .filter(([box]) => box.width < 44 || box.height < 44).map(([, html]) => html)
"""


@pytest.fixture(scope="module")
def long_conversation(site) -> str:
    return f"/c/{site.run(LONG).split()[-1]}/"


@pytest.fixture
def phone(chromium: Browser, site, signed_in: dict):
    context = chromium.new_context(
        base_url=site.address,
        storage_state=signed_in,
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
    )
    page = context.new_page()
    page.goto("/")
    yield page
    context.close()


def test_a_long_conversation_opens_at_its_end_and_stays_small(page: Page, long_conversation: str):
    page.goto(long_conversation)
    expect(page.get_by_text("Reply 299", exact=True)).to_be_in_viewport()
    assert page.evaluate(NODES) < 1500
    articles = page.locator("article")
    while page.get_by_role("button", name="Earlier messages").count():
        shown = articles.count()
        first = articles.first.get_attribute("data-id")
        page.get_by_role("button", name="Earlier messages").scroll_into_view_if_needed()
        expect(articles).not_to_have_count(shown)
        expect(page.locator(f'article[data-id="{first}"]')).to_be_in_viewport()
    expect(articles).to_have_count(300)
    expect(articles.first).to_contain_text("Question 0")
    assert page.evaluate(NODES) < 5000


def test_a_reader_who_scrolled_up_is_left_there(page: Page, long_conversation: str):
    page.goto(long_conversation)
    expect(page.get_by_text("Reply 299", exact=True)).to_be_in_viewport()
    ask(page, "Many lines [[text=markdown tokens=80 rate=30]]")
    expect(body(reply(page)).locator("h1").first).to_be_visible()
    page.locator("#scroller").hover()
    page.mouse.wheel(0, -600)
    expect(page.get_by_role("button", name="Latest")).to_be_visible()
    top = page.evaluate("document.getElementById('scroller').scrollTop")
    expect_end(page)
    assert abs(page.evaluate("document.getElementById('scroller').scrollTop") - top) < 2
    page.get_by_role("button", name="Latest").click()
    expect(reply(page).locator(".message__bar")).to_be_in_viewport()


def test_a_reader_at_the_end_sees_the_newest_words(page: Page):
    ask(page, "Grow [[text=markdown tokens=160 rate=80]]")
    expect_end(page)
    expect(reply(page).locator(".message__bar")).to_be_in_viewport()


def test_beginning_and_end_of_a_reply_are_spoken_once(page: Page):
    page.evaluate(
        """() => {
          window.spoken = [];
          const region = document.getElementById('announcer');
          const note = () => region.textContent && window.spoken.push(region.textContent);
          new MutationObserver(note).observe(region, {childList: true});
        }"""
    )
    ask(page, "Speak [[tokens=20 rate=20]]")
    expect_end(page)
    expect(page.locator("#announcer")).to_contain_text("Reply finished.")
    spoken = page.evaluate("window.spoken")
    assert spoken[0] == "Reply started."
    assert len(spoken) == 2
    assert "w19" in spoken[1]


def test_every_control_has_a_name(page: Page):
    ask_and_wait(page, "Names [[text=markdown tokens=8]]")
    for address in (page.url, "/", "/search/", "/models/", "/settings/"):
        page.goto(address)
        assert page.evaluate(UNNAMED) == []


def test_the_page_can_be_used_by_keyboard_alone(page: Page):
    field(page).focus()
    page.keyboard.type("By keyboard")
    page.keyboard.press("Enter")
    expect_end(page)
    page.keyboard.press("ArrowUp")
    expect(field(page)).to_have_value("By keyboard")
    page.keyboard.press("Escape")
    expect(field(page)).to_have_value("")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Shift+O")
    expect(page).to_have_url(re.compile(r":\d+/$"))
    expect(field(page)).to_be_focused()


def test_a_phone_shows_the_list_on_demand_and_fits_its_width(phone: Page):
    ask_and_wait(phone, "On the road [[text=markdown tokens=8]]")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.evaluate(SMALL) == []
    expect(phone.get_by_role("searchbox")).to_be_hidden()
    phone.get_by_role("button", name="Show conversations").tap()
    expect(phone.get_by_role("searchbox")).to_be_visible()
    expect(phone.get_by_role("link", name="On the road").first).to_be_in_viewport()
    phone.keyboard.press("Escape")
    expect(phone.get_by_role("searchbox")).to_be_hidden()
    expect(phone.get_by_role("button", name="Show conversations")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_device(chromium: Browser, site, signed_in: dict, scheme: str):
    context: BrowserContext = chromium.new_context(base_url=site.address, storage_state=signed_in, color_scheme=scheme)
    page = context.new_page()
    page.goto("/")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in re.findall(r"\d+", background)[:3])
    assert (brightness > 600) == (scheme == "light")
    context.close()
