"""Datasets in the browser: an upload that survives a reload, mapped columns, a review by keyboard, versions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.site import Site
from tests.browser.test_layout import SMALL, UNNAMED

# What a worker does: here and now, because the test is about the pages.
WORK = """
import django
django.setup()
from finetuning import datasets
from finetuning.models import DatasetImport, DatasetVersion
for item in DatasetImport.objects.filter(status="queued"):
    datasets.run_import(item.pk)
for version in DatasetVersion.objects.filter(status="freezing"):
    datasets.freeze_version(version.pk)
"""
FILL = """
import django, json, sys
django.setup()
from finetuning import datasets
from finetuning.formats import check_example
name, kind, contents = json.loads(sys.argv[1])
dataset = datasets.create_dataset(name, user=None, kind=kind)
drafts = [datasets.Draft(check_example(kind, content)[0], line=line) for line, content in enumerate(contents, 1)]
datasets.add_drafts(dataset, drafts, source_import=None, is_approved=False)
print(dataset.pk)
"""
CANCEL = """
import django
django.setup()
from finetuning import datasets
from finetuning.models import DatasetImport
datasets.cancel_import(DatasetImport.objects.latest("created_at"))
"""
PART = 4 * 1024 * 1024


def chat(question: str, answer: str) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def work(site: Site) -> Callable[[], str]:
    return lambda: site.run(WORK)


@pytest.fixture
def fill(site: Site) -> Callable[..., str]:
    """A dataset whose rows wait for review; its address."""

    def make(name: str, contents: list[dict], *, kind: str = "chat") -> str:
        return f"/datasets/{site.run(FILL, json.dumps([name, kind, contents])).split()[-1]}/"

    return make


@pytest.fixture
def big_file(tmp_path: Path) -> Path:
    """Three parts."""
    path = tmp_path / "long talks.jsonl"
    with path.open("w") as file:
        number = 0
        while file.tell() < 2.5 * PART:
            file.write(json.dumps(chat(f"Question {number}", f"Answer {number} " + "and so on " * 9_000)) + "\n")
            number += 1
    return path


class Parts:
    """Which parts went over the wire; the second one may be held back."""

    def __init__(self, page: Page) -> None:
        self.sent: list[int] = []
        self.hold_from = 0
        page.context.route("**/parts/*", self._pass)

    def _pass(self, route: Route) -> None:
        number = int(route.request.url.rpartition("/")[2])
        if self.hold_from and number >= self.hold_from:
            return  # neither sent nor refused: a very slow line
        self.sent.append(number)
        route.continue_()


def forget_refusals(complaints: list[str], *statuses: int) -> None:
    """The browser complains of every answer that is a refusal; these were asked for."""
    wanted = tuple(f"status of {status}" for status in statuses)
    complaints[:] = [text for text in complaints if not any(words in text for words in wanted)]


def choose(page: Page, path: Path) -> None:
    page.get_by_label(re.compile("Drop")).set_input_files(path)


def test_upload_goes_on_after_a_reload(page: Page, big_file: Path, work):
    parts = Parts(page)
    parts.hold_from = 2
    page.goto("/datasets/new/")
    choose(page, big_file)
    expect(page.get_by_label("Name")).to_have_value("long talks")
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page).to_have_url(re.compile(r"/datasets/\d+/imports/[0-9a-f-]{36}/$"))
    expect(page.locator("#upload-figures")).to_contain_text("4 MB of")
    assert parts.sent == [1]

    page.once("dialog", lambda dialog: dialog.accept())  # the page asks before it is left
    page.reload()
    expect(page.get_by_text("1 of 3 parts")).to_be_visible()
    parts.hold_from = 0
    choose(page, big_file)
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text(re.compile("Queued|Reading"))).to_be_visible()
    assert parts.sent == [1, 2, 3]

    work()
    rows = sum(1 for _ in big_file.open())
    expect(page.locator(".figure", has_text="Added")).to_contain_text(str(rows))
    expect(page.get_by_text("Every row was read.", exact=True)).to_be_visible()
    expect(page.locator("#announcer")).to_contain_text(f"{rows} rows added")
    expect(page.get_by_role("link", name="Freeze a version")).to_be_visible()


def test_another_file_is_not_taken_for_the_same(page: Page, big_file: Path, tmp_path: Path):
    parts = Parts(page)
    parts.hold_from = 2
    page.goto("/datasets/new/")
    choose(page, big_file)
    page.get_by_label("Name").fill("Half a file")
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.locator("#upload-figures")).to_contain_text("4 MB of")
    page.once("dialog", lambda dialog: dialog.accept())
    page.reload()
    other = tmp_path / "other.jsonl"
    other.write_text("{}\n")
    choose(page, other)
    expect(page.get_by_role("alert")).to_contain_text("This is another file.")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel the upload").click()
    expect(page.get_by_text("Cancelled")).to_be_visible()


def pause_after_the_first_part(page: Page, file: Path, *, name: str) -> Parts:
    parts = Parts(page)
    parts.hold_from = 2
    page.goto("/datasets/new/")
    choose(page, file)
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.locator("#upload-figures")).to_contain_text("4 MB of")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#upload-state")).to_contain_text("Paused")
    return parts


def test_upload_waits_for_the_network_and_can_be_paused(page: Page, big_file: Path):
    parts = pause_after_the_first_part(page, big_file, name="On the train")
    parts.hold_from = 0
    page.context.set_offline(True)
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#upload-state")).to_contain_text("cannot be reached")
    page.context.set_offline(False)
    expect(page.get_by_text(re.compile("Queued|Reading"))).to_be_visible()


def test_upload_that_was_cancelled_elsewhere_ends_here_too(
    page: Page, site: Site, big_file: Path, complaints: list[str]
):
    parts = pause_after_the_first_part(page, big_file, name="Ended elsewhere")
    site.run(CANCEL)
    parts.hold_from = 0
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("This upload has ended. Start a new one.")).to_be_visible()
    forget_refusals(complaints, 409)


def test_refusal_of_an_upload_is_shown_beside_the_field(page: Page, fill, tmp_path: Path, complaints: list[str]):
    fill("Taken name", [chat("A?", "B.")])
    page.goto("/datasets/new/")
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.locator("#file-error")).to_have_text("Choose a file first.")
    packed = tmp_path / "rows.jsonl"
    packed.write_bytes(b"PK\x03\x04" + b"x" * 100)
    choose(page, packed)
    page.get_by_label("Name").fill("Taken name")
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.locator("#name-error")).to_contain_text("already")
    page.get_by_label("Name").fill("Packed")
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.locator("#upload-error")).to_contain_text("packed")
    forget_refusals(complaints, 400)


def test_columns_of_a_table_are_mapped(page: Page, tmp_path: Path, work):
    table = tmp_path / "opinions.csv"
    opinions = "".join(f'"Opinion {number}, frankly",{"up" if number % 3 else "down"}\n' for number in range(30))
    table.write_text("zzz,qqq\n" + opinions)
    page.goto("/datasets/new/")
    choose(page, table)
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_role("heading", name="Which column is what?")).to_be_visible()
    expect(page.get_by_role("cell", name="Opinion 0, frankly")).to_be_visible()
    page.get_by_label("A row is").select_option(label="Text and label")
    page.get_by_label("Text", exact=True).select_option("zzz")
    page.get_by_label("Label", exact=True).select_option("qqq")
    page.get_by_role("button", name="Read the file").click()
    expect(page.get_by_text("Queued")).to_be_visible()
    work()
    expect(page.locator(".figure", has_text="Added")).to_contain_text("30")
    page.get_by_role("link", name="To the dataset").click()
    expect(page.get_by_role("progressbar", name="up")).to_be_visible()


def test_rows_are_reviewed_by_keyboard(page: Page, fill, complaints: list[str]):
    address = fill(
        "By keyboard",
        [
            chat("Is the sea salty?", "Yes, it is."),
            chat("Who are you?", "I do not know."),
            chat("How do I reach you?", "Write to ann@example.org."),
            chat("What is two and two?", "Five."),
        ],
    )
    page.goto(f"{address}review/")
    article = page.locator("#example")
    expect(article).to_contain_text("Is the sea salty?")
    expect(page.locator(".tabs .count")).to_have_text("4")
    page.keyboard.press("a")
    expect(article).to_contain_text("Who are you?")
    expect(page.locator(".tabs .count")).to_have_text("3")
    expect(article).to_be_focused()
    expect(page.locator("#announcer")).to_contain_text("Approved.")
    page.keyboard.press("r")
    expect(article).to_contain_text("How do I reach you?")
    expect(page.locator("mark.finding")).to_contain_text("ann@example.org")
    page.keyboard.press("m")
    expect(article).to_contain_text("[EMAIL]")
    page.keyboard.press("j")
    expect(article).to_contain_text("What is two and two?")
    page.keyboard.press("k")
    expect(article).to_contain_text("How do I reach you?")
    page.keyboard.press("j")
    expect(article).to_contain_text("What is two and two?")

    page.keyboard.press("e")
    answer = page.get_by_label("What is said").nth(1)
    answer.fill("")
    answer.press("Control+Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    answer.fill("Four.")
    answer.press("Control+Enter")
    expect(article).to_contain_text("How do I reach you?")
    page.goto(f"{address}review/?status=approved")
    page.keyboard.press("j")
    expect(article).to_contain_text("Original")
    expect(article).to_contain_text("Five.")
    expect(article).to_contain_text("Four.")
    expect(article).to_contain_text("anna")
    forget_refusals(complaints, 422)


def test_edit_is_not_lost_without_the_server_nor_left_by_accident(page: Page, fill, complaints: list[str]):
    page.goto(f"{fill('Not lost', [chat('Long?', 'Short.')])}review/")
    page.keyboard.press("e")
    answer = page.get_by_label("What is said").nth(1)
    answer.fill("A very long answer")
    page.context.set_offline(True)
    answer.press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("could not be reached")
    expect(answer).to_have_value("A very long answer")
    page.context.set_offline(False)
    page.once("dialog", lambda dialog: dialog.dismiss())
    answer.press("Escape")
    expect(answer).to_have_value("A very long answer")
    page.get_by_role("button", name="Add a turn").click()
    page.get_by_label("What is said").nth(2).fill("And then?")
    page.get_by_role("button", name="Add a turn").click()
    page.get_by_label("What is said").nth(3).fill("The end.")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("Nothing is left to review")).to_be_visible()
    page.goto(page.url.split("?")[0] + "?status=approved")
    expect(page.locator("#example")).to_contain_text("The end.")
    complaints[:] = [text for text in complaints if not text.startswith("htmx:")]  # it logs what could not be sent


def test_list_filters_and_decides_about_all_that_match(page: Page, fill):
    contents = [chat(f"Tell me about {word} {n}", "Gladly.") for word in ("cats", "dogs") for n in range(3)]
    page.goto(f"{fill('Animals', contents)}review/")
    page.get_by_role("link", name="List").click()
    rows = page.locator(".example-row")
    expect(rows).to_have_count(6)
    page.get_by_label("Words").fill("dogs")
    expect(rows).to_have_count(3)
    expect(page).to_have_url(re.compile("q=dogs"))
    rows.first.get_by_role("button", name=re.compile("Reject")).click()
    expect(rows.first).to_contain_text("Rejected")
    expect(page.locator(".tabs .count")).to_have_text("5")
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("summary", has_text="All 3").click()
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page.get_by_text("2 rows are approved.")).to_be_visible()


def test_versions_are_frozen_and_compared(page: Page, fill, work):
    address = fill("Frozen", [chat(f"Question {number}?", f"Answer {number}.") for number in range(20)])
    page.goto(f"{address}review/?status=pending&mode=list")
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("summary", has_text="All 20").click()
    page.get_by_role("button", name="Approve", exact=True).click()
    for number in (1, 2):
        page.goto(f"{address}versions/")
        page.get_by_label("Notes").fill(f"Number {number}")
        page.get_by_role("button", name="Freeze").click()
        expect(page.get_by_text("Being frozen")).to_be_visible()
        work()
        expect(page.get_by_role("link", name="Export JSONL")).to_be_visible()
        page.goto(f"{address}review/?status=approved")
        page.keyboard.press("r")
        expect(page.locator(".done")).to_contain_text("Rejected: it stays here")
    page.goto(f"{address}versions/")
    page.get_by_role("button", name="Show the difference").click()
    expect(page.get_by_role("heading", name="v1 to v2")).to_be_visible()
    expect(page.locator(".diff--removed")).to_contain_text("Question 0?")
    expect(page.locator(".figure", has_text="Removed")).to_contain_text("−1")
    with page.expect_download() as download:
        page.goto(f"{address}versions/2/")
        page.get_by_role("link", name="Export JSONL").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == 19
    assert all("messages" in json.loads(line) for line in lines)


def test_live_count_follows_the_filters(page: Page):
    page.goto("/datasets/from-conversations/")
    expect(page.locator("#count")).to_contain_text("rows now")
    page.get_by_label("Rated answers").check()
    with page.expect_response(lambda response: "count/" in response.url and "kind=kto" in response.url):
        page.get_by_label("Since").fill("2026-01-01")
    expect(page.get_by_text("Only people who agreed to it are counted")).to_be_visible()


@pytest.fixture
def phone(chromium: Browser, site: Site, signed_in: dict) -> Iterator[Page]:
    context = chromium.new_context(
        base_url=site.address,
        storage_state=signed_in,
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
    )
    yield context.new_page()
    context.close()


def test_pages_fit_a_phone_and_every_control_has_a_name(phone: Page, fill):
    long = "A_very_long_word_without_any_place_to_break_" * 8
    address = fill("Pocket", [chat(long, long), chat("Write to ann@example.org", "Done.")])
    edit = "review/?status=&mode=list"
    for path in ("", "review/", edit, "versions/", "add/", "delete/"):
        phone.goto(address + path)
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert phone.evaluate(UNNAMED) == [], path
        assert phone.evaluate(SMALL) == [], path
    for path in ("/datasets/", "/datasets/new/", "/datasets/from-conversations/"):
        phone.goto(path)
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert phone.evaluate(UNNAMED) == [], path
        assert phone.evaluate(SMALL) == [], path
    phone.goto(f"{address}review/")
    phone.get_by_role("link", name="Edit").tap()
    expect(phone.get_by_label("What is said").first).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.evaluate(UNNAMED) == []
