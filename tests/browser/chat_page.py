"""What a person does and sees on the chat page, in words."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect


def field(page: Page) -> Locator:
    return page.get_by_label("Message", exact=True)


def ask(page: Page, text: str) -> None:
    field(page).fill(text)
    field(page).press("Enter")


def question(page: Page) -> Locator:
    return page.locator("article.message--user").last


def reply(page: Page) -> Locator:
    return page.locator("article.message--assistant").last


def body(message: Locator) -> Locator:
    return message.locator(".message__body")


def expect_end(page: Page, status: str = "complete") -> None:
    expect(reply(page)).to_have_attribute("data-status", status)


def ask_and_wait(page: Page, text: str) -> None:
    """The first question of a new conversation, answered."""
    ask(page, text)
    expect(question(page).locator(".message__body")).to_have_text(text)
    expect_end(page)
