"""Nothing that was typed is lost, and nothing is sent by accident."""

import json
import re

from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.chat_page import ask, ask_and_wait, body, expect_end, field, question, reply
from tests.support.upstream import answer_text


def test_shift_enter_breaks_the_line_and_enter_sends(page: Page):
    field(page).press_sequentially("one")
    field(page).press("Shift+Enter")
    field(page).press_sequentially("two")
    expect(page).to_have_url(re.compile(r"/$"))
    field(page).press("Enter")
    expect(body(question(page))).to_have_text("one\ntwo")


def test_enter_that_ends_a_composition_does_not_send(page: Page):
    field(page).fill("にほん")
    field(page).dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    field(page).dispatch_event("keydown", {"key": "Enter", "keyCode": 229})
    expect(field(page)).to_have_value("にほん")
    expect(page.locator("article")).to_have_count(0)


def test_the_draft_survives_a_reload_and_belongs_to_its_conversation(page: Page):
    ask_and_wait(page, "A conversation with a draft")
    field(page).fill("half a thought")
    page.reload()
    expect(field(page)).to_have_value("half a thought")
    page.get_by_role("link", name="New conversation").first.click()
    expect(field(page)).to_have_value("")
    page.go_back()
    expect(field(page)).to_have_value("half a thought")


def test_what_is_written_offline_is_sent_when_the_connection_is_back(page: Page, context: BrowserContext):
    ask_and_wait(page, "Online")
    context.set_offline(True)
    expect(page.locator("#connection")).to_contain_text("You are offline")
    ask(page, "Written offline")
    expect(page.get_by_text("Will be sent when the connection is back.")).to_be_visible()
    context.set_offline(False)
    expect(page.locator("#connection")).to_be_hidden()
    expect(body(question(page))).to_have_text("Written offline")
    expect_end(page)
    page.reload()
    expect(page.locator("article.message--user")).to_have_count(2)


def test_an_unsent_message_survives_a_reload(page: Page, site):
    ask_and_wait(page, "Before the server went away")
    site.kill_web()
    try:
        expect(page.locator("#connection")).to_be_visible()
        ask(page, "Nobody heard this yet")
        expect(page.get_by_text("Will be sent when the connection is back.")).to_be_visible()
    finally:
        site.restart_web()
    page.reload()
    expect(body(question(page))).to_have_text("Nobody heard this yet")
    expect_end(page)
    page.reload()
    expect(page.locator("article.message--user")).to_have_count(2)


def test_the_page_goes_on_with_a_reply_after_the_connection_was_lost(page: Page, context: BrowserContext):
    ask(page, "Long [[tokens=60 rate=10]]")
    expect(body(reply(page))).to_contain_text("w4")
    context.set_offline(True)
    expect(page.locator("#connection")).to_be_visible()
    context.set_offline(False)
    expect_end(page)
    expect(body(reply(page))).to_have_text(answer_text(60).strip())


def test_a_reply_whose_server_was_killed_is_interrupted_with_its_words_and_continues(page: Page, site):
    ask(page, "Killed [[tokens=60 rate=10]]")
    expect(body(reply(page))).to_contain_text("w12")
    site.kill_web()
    site.restart_web()
    expect(reply(page)).to_have_attribute("data-status", "interrupted", timeout=40_000)
    expect(body(reply(page))).to_contain_text("w12")
    reply(page).get_by_role("button", name="Continue").click()
    expect_end(page)
    expect(body(reply(page))).to_have_text(answer_text(60).strip())


def test_a_text_that_is_too_long_cannot_be_sent_and_says_so(page: Page):
    field(page).fill("é" * 100_001)
    expect(page.locator("#composer-status")).to_have_text("1 characters too many")
    expect(page.get_by_role("button", name="Send message")).to_be_disabled()


def test_a_refused_message_says_why_and_can_be_taken_back(page: Page):
    with page.expect_websocket():
        page.reload()
    page.route_web_socket("**/ws/chat/", refuse_everything)
    page.reload()
    ask(page, "Too fast")
    expect(page.get_by_text("Not sent. Slow down. Try again in 7 s.")).to_be_visible()
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(field(page)).to_have_value("Too fast")
    expect(page.locator("article")).to_have_count(0)


def refuse_everything(socket):

    def answer(text: str):
        request_id = json.loads(text).get("request_id")
        error = {"type": "error", "code": "rate_limited", "message": "Slow down.", "retry_after": 7}
        socket.send(json.dumps(error | {"request_id": request_id}))

    socket.on_message(answer)


def test_draft_of_a_new_conversation_survives_a_reload(page: Page):
    field(page).fill("half a thought")
    page.reload()
    expect(field(page)).to_have_value("half a thought")


def test_draft_of_a_new_conversation_survives_a_visit_elsewhere(page: Page):
    ask_and_wait(page, "One")
    there = page.url
    page.get_by_role("link", name="New conversation").first.click()
    field(page).fill("half a thought")
    page.goto(there)
    page.goto("/")
    expect(field(page)).to_have_value("half a thought")
