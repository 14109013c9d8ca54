"""The list of conversations, search, and what happens in the other tab."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from tests.browser.chat_page import ask_and_wait, body, field, question
from tests.browser.site import NAME, PASSWORD

MANY = """
import django
django.setup()
from datetime import timedelta
from django.utils import timezone
from accounts.models import User
from chat.models import Conversation
anna = User.objects.get(username="anna")
for number in range(70):
    moment = timezone.now() - timedelta(days=10, minutes=number)
    Conversation.objects.create(owner=anna, title=f"Archived {number}", model="scripted", updated_at=moment)
"""


def items(page: Page):
    return page.get_by_role("navigation", name="Your conversations").get_by_role("link")


def choose(page: Page, action: str) -> None:
    page.get_by_role("button", name="Actions for this conversation", exact=True).click()
    page.get_by_role("menuitem", name=action, exact=True).click()


def test_a_new_conversation_appears_in_the_other_tab_at_once(page: Page, context: BrowserContext):
    other = context.new_page()
    other.goto("/")
    expect(field(other)).to_be_visible()
    ask_and_wait(page, "Seen from the other tab")
    expect(items(other).first).to_have_text("Seen from the other tab")
    expect(other).to_have_url(re.compile(r":\d+/$"))


def test_rename_shows_everywhere_and_is_text_not_markup(page: Page, context: BrowserContext):
    ask_and_wait(page, "Name me")
    other = context.new_page()
    other.goto(page.url)
    expect(other.locator("#title")).to_have_text("Name me")
    choose(page, "Rename")
    page.get_by_label("Title").fill("<b>Bold</b> & free")
    page.keyboard.press("Enter")
    for shown in (page, other):
        expect(shown.locator("#title")).to_have_text("<b>Bold</b> & free")
        expect(items(shown).first).to_have_text("<b>Bold</b> & free")


def test_pinned_conversations_come_first(page: Page):
    ask_and_wait(page, "Pin me")
    choose(page, "Pin")
    pinned = page.locator(".group", has=page.get_by_role("heading", name="Pinned"))
    expect(pinned.get_by_role("link", name="Pin me")).to_be_visible()
    choose(page, "Unpin")
    expect(pinned.get_by_role("link", name="Pin me")).to_have_count(0)


def test_a_deleted_conversation_can_be_brought_back(page: Page):
    ask_and_wait(page, "Delete me")
    address = page.url
    choose(page, "Delete")
    expect(items(page).filter(has_text="Delete me")).to_have_count(0)
    expect(page).to_have_url(re.compile(r":\d+/$"))
    page.get_by_role("button", name="Undo").click()
    expect(page).to_have_url(address)
    expect(body(question(page))).to_have_text("Delete me")


def test_conversations_open_without_loading_the_page_anew(page: Page):
    ask_and_wait(page, "First of two")
    page.get_by_role("link", name="New conversation").first.click()
    expect(page.get_by_role("heading", name="What would you like to talk about?")).to_be_visible()
    ask_and_wait(page, "Second of two")
    page.evaluate("document.body.dataset.same = 'yes'")
    items(page).filter(has_text="First of two").first.click()
    expect(body(question(page))).to_have_text("First of two")
    page.go_back()
    expect(body(question(page))).to_have_text("Second of two")
    assert page.evaluate("document.body.dataset.same") == "yes"


@pytest.fixture
def two(page: Page) -> Iterator[tuple[str, str, list[Route]]]:
    """Two conversations, the second of them on screen; the messages of the first one are held back until let go."""
    ask_and_wait(page, "The slow one")
    slow = page.url
    page.get_by_role("link", name="New conversation").first.click()
    expect(page.get_by_role("heading", name="What would you like to talk about?")).to_be_visible()
    ask_and_wait(page, "The quick one")
    held: list[Route] = []
    page.route(f"{slow}messages/", lambda route: held.append(route))
    yield slow, page.url, held
    page.unroute_all(behavior="ignoreErrors")


def let_go(page: Page, held: list[Route]) -> None:
    """The page has the answer when this returns, and had time to act on it: another one came after it."""
    with page.expect_response(held[0].request.url) as response:
        held[0].continue_()
    response.value.finished()
    page.evaluate("fetch('/healthz').then((answer) => answer.text())")


def test_the_conversation_asked_for_last_is_the_one_that_is_shown(page: Page, two):
    _, quick, held = two
    page.get_by_role("link", name="New conversation").first.click()
    with page.expect_request("**/messages/"):
        items(page).filter(has_text="The slow one").first.click()
    items(page).filter(has_text="The quick one").first.click()
    expect(body(question(page))).to_have_text("The quick one")
    let_go(page, held)
    expect(page).to_have_url(quick)
    expect(body(question(page))).to_have_text("The quick one")
    expect(page.locator("#title")).to_have_text("The quick one")
    page.go_back()
    expect(page).to_have_url(re.compile(r":\d+/$"))


def test_a_new_conversation_is_not_replaced_by_one_that_was_asked_for_before(page: Page, two):
    _, _, held = two
    page.get_by_role("link", name="New conversation").first.click()
    with page.expect_request("**/messages/"):
        items(page).filter(has_text="The slow one").first.click()
    page.get_by_role("link", name="New conversation").first.click()
    let_go(page, held)
    expect(page).to_have_url(re.compile(r":\d+/$"))
    expect(page.get_by_role("heading", name="What would you like to talk about?")).to_be_visible()


def test_who_goes_back_and_thinks_better_of_it_keeps_conversation_and_address(page: Page, two):
    slow, quick, held = two
    page.goto(slow)
    items(page).filter(has_text="The quick one").first.click()
    expect(body(question(page))).to_have_text("The quick one")
    with page.expect_request("**/messages/"):
        page.go_back()
    expect(page).to_have_url(slow)
    items(page).filter(has_text="The quick one").first.click()
    expect(page).to_have_url(quick)
    let_go(page, held)
    expect(page).to_have_url(quick)
    expect(body(question(page))).to_have_text("The quick one")


def test_earlier_conversations_come_as_one_scrolls(page: Page, site):
    site.run(MANY)
    page.reload()
    before = items(page).count()
    assert before <= 60
    while page.get_by_role("button", name="Show earlier ones").is_visible():
        shown = items(page).count()
        page.locator("#conversations").evaluate("list => list.scrollTop = list.scrollHeight")
        expect(items(page)).not_to_have_count(shown)
    texts = items(page).all_text_contents()
    archived = [text for text in texts if text.startswith("Archived")]
    assert archived == [f"Archived {number}" for number in range(70)]


def test_search_finds_the_words_of_a_message_and_leads_to_it(page: Page):
    ask_and_wait(page, "The zebra wore a cardigan [[tokens=3]]")
    page.keyboard.press("Control+k")
    page.keyboard.type("cardigan")
    page.keyboard.press("Enter")
    expect(page.locator(".result mark").first).to_have_text("cardigan")
    page.locator(".result").first.click()
    expect(page.locator(".message--found")).to_contain_text("cardigan")


def test_search_follows_the_typing(page: Page):
    ask_and_wait(page, "A quokka smiled")
    page.goto("/search/")
    page.get_by_label("Search for").press_sequentially("quokka")
    expect(page.locator(".result").first).to_contain_text("A quokka smiled")
    expect(page).to_have_url(re.compile(r"\?q=quokka$"))
    page.get_by_label("Search for").fill("nothing has these words")
    expect(page.get_by_role("heading", name=re.compile("Nothing found"))).to_be_visible()


def test_somebody_who_signs_out_elsewhere_is_told(page: Page, chromium, site):
    context = chromium.new_context(base_url=site.address)
    tab = context.new_page()
    tab.goto("/accounts/login/")
    tab.get_by_label("User name or e-mail").fill(NAME)
    tab.get_by_label("Password", exact=True).fill(PASSWORD)
    tab.keyboard.press("Enter")
    expect(field(tab)).to_be_visible()
    other = context.new_page()
    other.goto("/settings/")
    other.locator("summary.account").click()
    other.get_by_role("button", name="Sign out").click()
    expect(tab.locator("#connection")).to_contain_text("You have been signed out.")
    context.close()
