"""What people think of replies, in a real browser: thumbs, corrections, the better of two; other tabs see it too."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.chat_page import ask_and_wait, body, expect_end, reply
from tests.browser.site import NAME, Site
from tests.support.upstream import answer_text

CONSENT = """
import sys, django
django.setup()
from accounts.models import User
from accounts.services import set_training_consent
set_training_consent(User.objects.get(username=sys.argv[1]), agrees=sys.argv[2] == "yes")
"""


@pytest.fixture
def consent(site: Site) -> Iterator[None]:
    site.run(CONSENT, NAME, "yes")
    yield
    site.run(CONSENT, NAME, "no")


@pytest.fixture
def answered(page: Page) -> Page:
    ask_and_wait(page, "Which river is longest? [[tokens=6]]")
    return page


@pytest.fixture
def other(answered: Page, context: BrowserContext) -> Page:
    """The same conversation in a second tab, which is quiet: it hears what the first one does."""
    tab = context.new_page()
    tab.goto(answered.url)
    expect(reply(tab)).to_be_visible()
    expect(tab.locator("#connection")).to_be_hidden()
    return tab


def thumb(page: Page, name: str) -> Locator:
    return reply(page).get_by_role("button", name=f"{name} answer")


def expect_rating(page: Page, *, good: bool = False, bad: bool = False) -> None:
    expect(thumb(page, "Good")).to_have_attribute("aria-pressed", str(good).lower())
    expect(thumb(page, "Bad")).to_have_attribute("aria-pressed", str(bad).lower())


def correction(page: Page) -> Locator:
    return reply(page).get_by_role("region", name="Your correction")


def test_a_thumb_goes_up_and_down_in_every_tab_and_is_kept(answered: Page, other: Page):
    thumb(answered, "Good").click()
    for page in (answered, other):
        expect_rating(page, good=True)
    other.reload()
    expect_rating(other, good=True)
    thumb(answered, "Good").click()
    for page in (answered, other):
        expect_rating(page)


def test_a_bad_answer_is_asked_about_and_the_reasons_are_kept(answered: Page, other: Page):
    thumb(answered, "Bad").click()
    expect_rating(other, bad=True)
    dialog = answered.get_by_role("dialog", name="What was wrong with it?")
    dialog.get_by_label("Not true").check()
    dialog.get_by_label("Anything to add?").fill("The Nile is longer.")
    dialog.get_by_role("button", name="Send").click()
    expect(dialog).to_be_hidden()
    thumb(other, "Bad").click()
    again = other.get_by_role("dialog", name="What was wrong with it?")
    expect(again.get_by_label("Not true")).to_be_checked()
    expect(again.get_by_label("Too long")).not_to_be_checked()
    expect(again.get_by_label("Anything to add?")).to_have_value("The Nile is longer.")
    again.get_by_role("button", name="Take the rating back").click()
    for page in (answered, other):
        expect_rating(page)


def test_a_good_answer_may_be_given_a_reason_which_is_kept(answered: Page, other: Page):
    thumb(answered, "Good").click()
    expect_rating(other, good=True)
    expect(answered.get_by_role("dialog")).to_be_hidden()
    answered.get_by_role("button", name="Say what was good").click()
    dialog = answered.get_by_role("dialog", name="What was good about it?")
    expect(dialog.get_by_role("checkbox")).to_have_count(0)
    dialog.get_by_label("In your own words").fill("It names its source.")
    dialog.get_by_role("button", name="Send").click()
    expect(dialog).to_be_hidden()
    expect(thumb(answered, "Good")).to_be_focused()
    expect_rating(answered, good=True)
    other.reload()
    thumb(other, "Good").click()
    again = other.get_by_role("dialog", name="What was good about it?")
    expect(again.get_by_label("In your own words")).to_have_value("It names its source.")
    again.get_by_role("button", name="Take the rating back").click()
    for page in (answered, other):
        expect_rating(page)


def test_the_reasons_of_one_thumb_are_not_asked_or_kept_for_the_other(answered: Page):
    thumb(answered, "Bad").click()
    dialog = answered.get_by_role("dialog", name="What was wrong with it?")
    dialog.get_by_label("Not true").check()
    dialog.get_by_label("Anything to add?").fill("No.")
    dialog.get_by_role("button", name="Send").click()
    thumb(answered, "Good").click()
    expect_rating(answered, good=True)
    answered.get_by_role("button", name="Say what was good").click()
    expect(answered.get_by_label("In your own words")).to_have_value("")
    answered.keyboard.press("Escape")
    thumb(answered, "Bad").click()
    expect(dialog.get_by_label("Not true")).not_to_be_checked()
    expect(dialog.get_by_label("Anything to add?")).to_have_value("")


PUT_FEEDBACK = """
([id, feedback]) => fetch(`/api/messages/${id}/feedback`, {
  method: 'PUT',
  headers: {...JSON.parse(document.body.getAttribute('hx-headers')), 'Content-Type': 'application/json'},
  body: JSON.stringify(feedback),
}).then((response) => response.json())
"""


def test_tags_that_a_program_gave_a_good_answer_are_kept(answered: Page):
    reply_id = reply(answered).get_attribute("data-id")
    said = {"rating": 1, "comment": "From a script", "tags": ["too_long"]}
    answered.evaluate(PUT_FEEDBACK, [reply_id, said])
    expect_rating(answered, good=True)
    thumb(answered, "Good").click()
    answered.get_by_label("In your own words").fill("From a person")
    with answered.expect_response(f"**/api/messages/{reply_id}/feedback") as response:
        answered.get_by_role("button", name="Send", exact=True).click()
    assert response.value.json()["feedback"] == said | {"comment": "From a person"}


def test_a_good_answer_is_given_its_reason_by_keyboard(answered: Page):
    thumb(answered, "Good").focus()
    answered.keyboard.press("Enter")
    offer = answered.get_by_role("button", name="Say what was good")
    expect(offer).to_be_visible()
    expect(thumb(answered, "Good")).to_be_focused()
    expect(answered.locator("#announcer")).to_contain_text("Rated as good. Below the reply you can say why.")
    while not offer.evaluate("button => button === document.activeElement"):
        answered.keyboard.press("Tab")
        expect(answered.locator("#messages :focus")).to_be_visible()  # it comes before the field one writes in
    answered.keyboard.press("Enter")
    expect(answered.get_by_label("In your own words")).to_be_focused()
    answered.keyboard.press("Escape")
    expect(answered.get_by_role("dialog")).to_be_hidden()
    expect(thumb(answered, "Good")).to_be_focused()
    expect_rating(answered, good=True)


def test_dialog_that_is_closed_keeps_the_thumb(answered: Page):
    thumb(answered, "Bad").click()
    expect(answered.get_by_role("dialog")).to_be_visible()
    answered.keyboard.press("Escape")
    expect(answered.get_by_role("dialog")).to_be_hidden()
    expect_rating(answered, bad=True)
    answered.reload()
    expect_rating(answered, bad=True)


def test_thumbs_work_by_keyboard(answered: Page):
    thumb(answered, "Good").focus()
    answered.keyboard.press("Enter")
    expect_rating(answered, good=True)
    answered.keyboard.press("Tab")
    expect(thumb(answered, "Bad")).to_be_focused()
    answered.keyboard.press("Space")
    expect_rating(answered, bad=True)
    expect(answered.get_by_role("dialog")).to_be_visible()
    answered.keyboard.press("Escape")
    expect(thumb(answered, "Bad")).to_be_focused()


def open_correction(page: Page) -> Locator:
    reply(page).get_by_role("button", name="Correct this answer").click()
    return page.get_by_role("dialog", name="Correct this answer")


def test_a_corrected_answer_stands_below_the_original_in_every_tab(answered: Page, other: Page):
    dialog = open_correction(answered)
    expect(dialog.get_by_role("region", name="The answer")).to_have_text(answer_text(6).strip())
    expect(dialog.get_by_label("As it should have been")).to_have_value(answer_text(6))
    dialog.get_by_label("As it should have been").fill("The **Nile** is the longest river.")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    for page in (answered, other):
        expect(correction(page).locator("strong")).to_have_text("Nile")
        expect(body(reply(page))).to_have_text(answer_text(6).strip())
    other.reload()
    expect(correction(other)).to_contain_text("The Nile is the longest river.")
    correction(other).get_by_role("button", name="Change").click()
    expect(other.get_by_label("As it should have been")).to_have_value("The **Nile** is the longest river.")
    other.get_by_role("button", name="Remove the correction").click()
    expect(reply(other).get_by_role("button", name="Correct this answer")).to_be_focused()
    for page in (answered, other):
        expect(correction(page)).to_be_hidden()


def test_correction_that_corrects_nothing_is_refused_where_it_is_written(answered: Page, complaints: list[str]):
    dialog = open_correction(answered)
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("says the same")
    dialog.get_by_label("As it should have been").fill("Something else")
    expect(dialog.get_by_role("alert")).to_be_hidden()
    dialog.get_by_role("button", name="Save").click()
    expect(correction(answered)).to_contain_text("Something else")
    complaints[:] = [text for text in complaints if "400" not in text]  # the browser reports the refusal itself


def test_a_correction_that_was_begun_is_not_lost_when_its_editor_closes(answered: Page):
    dialog = open_correction(answered)
    dialog.get_by_label("As it should have been").fill("Half a senten")
    answered.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(open_correction(answered).get_by_label("As it should have been")).to_have_value("Half a senten")


def test_the_better_of_two_answers_is_chosen(answered: Page, other: Page):
    better = reply(answered).get_by_role("button", name="This one is better")
    expect(better).to_be_hidden()
    answered.get_by_role("button", name="Answer again").click()
    expect_end(answered)
    expect(better).to_have_attribute("aria-pressed", "false")
    better.click()
    expect(better).to_have_attribute("aria-pressed", "true")
    expect(reply(other).locator("[data-part=choose]")).to_have_attribute("aria-pressed", "true")
    reply(answered).get_by_role("button", name="Previous version").click()
    expect(reply(answered).locator("[data-part=sibling-count]")).to_have_text("1/2")
    expect(better).to_have_attribute("aria-pressed", "false")
    better.click()
    expect(better).to_have_attribute("aria-pressed", "true")
    reply(answered).get_by_role("button", name="Next version").click()
    expect(reply(answered).locator("[data-part=sibling-count]")).to_have_text("2/2")
    expect(better).to_have_attribute("aria-pressed", "false")


def line(page: Page) -> Locator:
    return page.locator(".training-line:visible")


def test_where_people_rate_stands_what_may_become_of_it(answered: Page):
    thumb(answered, "Good").click()
    expect(line(answered)).to_contain_text("Not used for training: you have not allowed it.")
    expect(line(answered).get_by_role("link")).to_have_attribute("href", "/settings/#training")
    open_correction(answered)
    expect(line(answered)).to_contain_text("you have not allowed it")


def test_who_has_agreed_reads_so_even_where_the_page_was_open_before(answered: Page, consent: None):
    thumb(answered, "Good").click()
    expect(line(answered)).to_contain_text("May be used for training, as you allowed.")


def test_a_conversation_is_kept_out_of_training_by_its_menu(answered: Page, other: Page, consent: None):
    answered.locator("#conversation-menu").click()
    answered.get_by_role("menuitemcheckbox", name="Keep out of training").click()
    for page in (answered, other):
        expect(page.locator("#excluded")).to_be_visible()
    thumb(answered, "Good").click()
    expect(line(answered)).to_contain_text("this conversation is kept out of it")
    answered.reload()
    expect(answered.locator("#excluded")).to_be_visible()
    answered.locator("#conversation-menu").click()
    expect(answered.get_by_role("menuitemcheckbox")).to_have_attribute("aria-checked", "true")
    answered.get_by_role("menuitemcheckbox").click()
    for page in (answered, other):
        expect(page.locator("#excluded")).to_be_hidden()


def test_consent_is_given_and_withdrawn_on_the_settings_page(page: Page):
    page.goto("/settings/")
    training = page.get_by_role("region", name="Training with your conversations")
    expect(training.get_by_role("heading", name="Your part in training")).to_be_visible()
    training.get_by_role("button", name="Allow training").click()
    expect(page.get_by_role("region", name=re.compile("Training")).get_by_text("allowed", exact=True)).to_be_visible()
    training.get_by_role("button", name="Withdraw").click()
    expect(training.get_by_role("button", name="Allow training")).to_be_visible()
