"""Versions of a model in the browser: promoted with a reason, rolled back in one click after a question, on a phone."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.site import Site
from tests.browser.test_layout import SMALL, UNNAMED
from tests.support.product import BASE_DIR

VERSIONS = "/models/harbour-helper/versions/"
MAKE = f"""
import sys
sys.path.insert(0, {str(BASE_DIR)!r})
import django
django.setup()
from accounts.models import User
from tests.finetuning.version_support import add_trained, make_trained_model, rate
anna = User.objects.get(username="anna")
model = make_trained_model()
answers = [{{"prompt": "Which pier?", "source": "fixed", "base": "I do not know.", "tuned": "Pier 4."}}]
rate(add_trained(model, answers=answers), anna, 1, 1, -1)
add_trained(model, is_evaluated=False)
"""
WIDER = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module", autouse=True)
def _model(site: Site) -> None:
    site.run(MAKE)


def test_a_version_is_promoted_and_rolled_back(page: Page):
    page.goto("/models/")
    page.get_by_role("link", name="Versions of Harbour-Helper").click()
    expect(page.get_by_role("heading", name="In production: version 1")).to_be_visible()
    expect(page.get_by_role("button", name="Roll back")).to_have_count(0)
    page.get_by_role("link", name="Version 2", exact=True).click()
    expect(page.get_by_text("Pier 4.")).to_be_visible()
    page.get_by_label("Promote it").fill("It knows the piers.")
    page.get_by_role("button", name="Promote").click()
    expect(page.get_by_role("status")).to_have_text("Version 2 answers from the next message on.")

    page.goto(VERSIONS)
    asked: list[str] = []

    def refuse(dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    page.once("dialog", refuse)
    page.get_by_role("button", name="Roll back to version 1").click()
    assert "Version 1 answers from the next message on" in asked[0]
    expect(page.get_by_role("heading", name="In production: version 2")).to_be_visible()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Roll back to version 1").click()
    expect(page.get_by_role("status")).to_have_text("Version 1 answers again from the next message on.")
    expect(page.get_by_role("row").filter(has_text="Rolled back from version 2.")).to_contain_text("anna")


def test_what_was_not_evaluated_cannot_be_promoted(page: Page):
    page.goto(f"{VERSIONS}3/")
    expect(page.get_by_text("has not been evaluated yet. Evaluate it")).to_be_visible()
    expect(page.get_by_role("button", name="Promote")).to_have_count(0)


@pytest.mark.parametrize("path", ["", "2/", "compare/?version=2&other=1"])
def test_the_pages_fit_a_phone_and_name_every_control(chromium: Browser, site: Site, signed_in: dict, path: str):
    context = chromium.new_context(
        base_url=site.address,
        storage_state=signed_in,
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
    )
    page = context.new_page()
    page.goto(VERSIONS + path)
    assert not page.evaluate(WIDER)
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate(SMALL) == []
    context.close()
