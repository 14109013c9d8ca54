"""The chat page in a real browser: asking, streaming, branches."""

import re

from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.chat_page import ask, ask_and_wait, body, expect_end, field, question, reply
from tests.support.upstream import answer_text

SLOW = "[[tokens=40 rate=15]]"


def test_a_question_is_answered_and_found_again_after_a_reload(page: Page):
    ask_and_wait(page, "Hello there [[tokens=30]]")
    expect(body(reply(page))).to_have_text(answer_text(30).strip())
    expect(page).to_have_url(re.compile(r"/c/[0-9a-f-]{36}/$"))
    expect(page.locator("#title")).to_contain_text("Hello there")
    expect(reply(page).locator(".message__meta")).to_contain_text("scripted v1")
    expect(reply(page).locator(".message__meta")).to_contain_text("30 out")
    page.reload()
    expect(body(reply(page))).to_have_text(answer_text(30).strip())


def test_the_reply_is_shown_while_it_grows_and_can_be_stopped(page: Page):
    ask(page, "Go on [[tokens=400 rate=20]]")
    expect(body(reply(page))).to_contain_text("w2")
    expect(page.get_by_role("button", name="Send message")).to_be_hidden()
    page.get_by_role("button", name="Stop the reply").click()
    expect_end(page, "stopped")
    expect(reply(page).locator(".message__meta")).to_contain_text("stopped")
    expect(reply(page).get_by_role("button", name="Continue")).to_be_visible()


def test_a_stopped_reply_goes_on_where_it_was(page: Page):
    ask(page, "Count [[tokens=60 rate=20]]")
    expect(body(reply(page))).to_contain_text("w3")
    page.keyboard.press("Escape")
    expect_end(page, "stopped")
    reply(page).get_by_role("button", name="Continue").click()
    expect_end(page)
    expect(body(reply(page))).to_have_text(answer_text(60).strip())


def test_a_reload_in_the_middle_of_a_reply_loses_and_repeats_nothing(page: Page):
    ask(page, f"Tell me {SLOW}")
    expect(body(reply(page))).to_contain_text("w5")
    page.reload()
    expect(body(reply(page))).to_contain_text("w10")
    expect_end(page)
    expect(body(reply(page))).to_have_text(answer_text(40).strip())


def test_two_tabs_show_the_same(page: Page, context: BrowserContext):
    ask(page, f"Both {SLOW}")
    expect(page).to_have_url(re.compile("/c/"))
    other = context.new_page()
    other.goto(page.url)
    expect_end(other)
    expect_end(page)
    assert body(reply(other)).inner_html() == body(reply(page)).inner_html()
    page.get_by_role("button", name="Answer again").click()
    expect(reply(other).locator("[data-part=sibling-count]")).to_have_text("2/2")
    expect_end(other)


def test_an_edit_makes_a_branch_and_the_arrows_go_back(page: Page):
    ask_and_wait(page, "First wording")
    question(page).hover()
    question(page).get_by_role("button", name="Edit message").click()
    expect(field(page)).to_have_value("First wording")
    ask(page, "Second wording")
    expect(body(question(page))).to_have_text("Second wording")
    expect(question(page).locator("[data-part=sibling-count]")).to_have_text("2/2")
    expect_end(page)
    question(page).get_by_role("button", name="Previous version").click()
    expect(body(question(page))).to_have_text("First wording")
    page.reload()
    expect(body(question(page))).to_have_text("First wording")
    expect(question(page).locator("[data-part=sibling-count]")).to_have_text("1/2")


def test_another_answer_is_a_sibling(page: Page):
    ask_and_wait(page, "Again, please")
    page.get_by_role("button", name="Answer again").click()
    expect(reply(page).locator("[data-part=sibling-count]")).to_have_text("2/2")
    expect_end(page)
    reply(page).get_by_role("button", name="Previous version").click()
    expect(reply(page).locator("[data-part=sibling-count]")).to_have_text("1/2")


def test_markdown_becomes_blocks_and_code_can_be_copied(page: Page, context: BrowserContext):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask_and_wait(page, "Markdown [[text=markdown tokens=8]]")
    expect(body(reply(page)).locator("h1")).to_have_text("Title")
    expect(body(reply(page)).locator("li")).to_have_count(2)
    page.get_by_role("button", name="Copy code").click()
    expect(page.get_by_text("Copied", exact=True)).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "x = 1\n"
    page.get_by_role("button", name="Copy reply").click()
    expect(reply(page).locator("[data-copied]").first).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").startswith("# Title")


def test_an_unfinished_code_block_is_shown_as_code(page: Page):
    ask(page, "Code [[text=markdown tokens=8 rate=2 at=7 end=hang]]")
    expect(page.locator(".tail .code-block code")).to_have_text(re.compile("x = 1"))
    assert "```" not in body(reply(page)).inner_text()
    page.keyboard.press("Escape")
    expect_end(page, "stopped")


def test_reasoning_is_kept_apart_and_folded(page: Page):
    ask_and_wait(page, "Think [[reasoning=6 tokens=4]]")
    expect(body(reply(page))).to_have_text(answer_text(4).strip())
    thoughts = reply(page).locator(".reasoning__text")
    expect(thoughts).to_be_hidden()
    reply(page).get_by_text("Thoughts").click()
    expect(thoughts).to_have_text("r0 r1 r2 r3 r4 r5 ")


def test_a_failed_reply_says_what_happened_and_what_to_do(page: Page):
    ask(page, "Break [[fail=401]]")
    expect_end(page, "failed")
    expect(reply(page).locator(".failure__what")).not_to_be_empty()
    expect(reply(page).locator(".failure__hint")).to_contain_text("administrator")
    expect(reply(page).get_by_role("button", name="Try again")).to_be_visible()


def test_text_that_had_arrived_is_kept_when_the_provider_drops(page: Page):
    ask(page, "Break off [[tokens=20 rate=40 end=drop at=10]]")
    expect_end(page, "failed")
    expect(body(reply(page))).to_contain_text("w9")
    expect(reply(page).get_by_role("button", name="Continue")).to_be_visible()


def test_another_model_can_be_picked(page: Page):
    page.get_by_role("button", name="Model: scripted").click()
    page.get_by_role("radio", name="second").check()
    page.keyboard.press("Enter")
    ask_and_wait(page, "Who are you?")
    expect(reply(page).locator(".message__meta")).to_contain_text("second v1")
    page.reload()
    expect(page.get_by_role("button", name="Model: second")).to_be_visible()


def test_a_model_without_weights_says_so_and_cannot_be_picked(page: Page):
    page.get_by_role("button", name="Model: scripted").click()
    expect(page.get_by_role("radio", name=re.compile("DistilBERT"))).to_be_disabled()
    expect(page.locator("#picker")).to_contain_text("not available")


def test_options_reach_the_model(page: Page, site):
    page.get_by_role("button", name="System prompt and options").click()
    page.get_by_role("textbox", name="System prompt").fill("Answer like a sailor.")
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_label("Longest reply, in tokens").fill("5")
    page.get_by_role("button", name="Done").click()
    ask_and_wait(page, "Options [[tokens=30]]")
    sent = site.upstream.chats[-1].body
    assert sent["temperature"] == 0.3
    assert sent["messages"][0] == {"role": "system", "content": "Answer like a sailor."}
    expect(reply(page).locator(".message__meta")).to_contain_text("cut at the longest reply")


def test_an_option_out_of_range_is_named_before_it_is_sent(page: Page):
    page.get_by_role("button", name="System prompt and options").click()
    page.get_by_label("Temperature").fill("3")
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_label("Temperature")).to_be_visible()
    assert page.get_by_label("Temperature").evaluate("field => field.validationMessage") != ""


def test_an_address_may_name_the_model_to_begin_with(page: Page):
    page.goto("/?model=second")
    expect(page.locator("#picker-name")).to_have_text("second")
    ask_and_wait(page, "Who are you? [[tokens=3]]")
    expect(reply(page).locator(".message__meta")).to_contain_text("second v1")
    page.get_by_role("link", name="New conversation").first.click()
    expect(page.locator("#picker-name")).to_have_text("scripted")
