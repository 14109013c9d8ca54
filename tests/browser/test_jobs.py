"""Trainings in the browser: made by the form, read before they start, watched live, cancelled, tried again.

The rows are written as a worker would, and announced; no model is loaded.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.site import Site
from tests.browser.test_layout import SMALL, UNNAMED
from tests.support.product import BASE_DIR

# One process for all the tests: starting Django for each line would take most of their time.
LOOP = f"""
import sys
sys.path.insert(0, {str(BASE_DIR)!r})
import django, json
django.setup()
from accounts.models import User
from finetuning.live.nudges import announce_job
from finetuning.models import Example, FineTuningJob, JobMetric
from models_hub.models import ModelVersion
from tests.finetuning import job_rows
for line in sys.stdin:
    code, arguments = json.loads(line)
    names = dict(globals(), arguments=arguments, anna=User.objects.get(username="anna"), answer=None)
    exec(code, names)
    print(json.dumps(names["answer"]), flush=True)
"""
# A base whose folder is there, and a frozen dataset of approved rows.
GROUND = """
from pathlib import Path
version = job_rows.make_base("tiny-base")
folder = Path(arguments["folder"])
(folder / "config.json").write_text("{}")
(folder / "model.safetensors").write_bytes(b"")
ModelVersion.objects.filter(pk=version.pk).update(source=str(folder))
frozen = job_rows.make_version(arguments["name"])
Example.objects.create(
    dataset=frozen.dataset, status="approved", content_hash=arguments["name"][:64],
    content={"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
)
"""
MAKE = """
fields = arguments["fields"]
version = job_rows.make_version(arguments["dataset"])
base = job_rows.make_base(fields.setdefault("base", "smollm2-135m-instruct"))
job = job_rows.make_job(anna, dataset_version=version, base_version=base, **fields)
if arguments["steps"]:
    job_rows.add_steps(job, 1, arguments["steps"], evaluate_every=10)
answer = str(job.pk)
"""
CHANGE = """
job = FineTuningJob.objects.filter(pk=arguments["job"])
job.update(**arguments["fields"])
announce_job(arguments["job"])
"""
STEPS = """
job = FineTuningJob.objects.get(pk=arguments["job"])
job_rows.add_steps(job, arguments["first"], arguments["last"], evaluate_every=10)
FineTuningJob.objects.filter(pk=job.pk).update(eta_seconds=600)
for code, message, data in arguments["events"]:
    job_rows.add_event(job, code, message, data=data)
announce_job(job.pk)
"""
REPORT = """
FineTuningJob.objects.filter(pk=arguments["job"]).update(preflight=job_rows.PREFLIGHT, status="queued")
announce_job(arguments["job"])
"""
STATE = """
job = FineTuningJob.objects.get(pk=arguments["job"])
answer = {"status": job.status, "retries": job.retries.count(), "is_held": job.is_held}
"""


class Worker:
    """What happens to jobs elsewhere, as a worker leaves it."""

    def __init__(self, site: Site) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        command = [sys.executable, "-c", LOOP]
        self._process = subprocess.Popen(command, cwd=BASE_DIR, env=site.environment, text=True, **pipes)

    def make(self, name: str, *, steps: int = 0, **fields) -> str:
        return self.do(MAKE, dataset=f"Data of {name}", steps=steps, fields={"name": name, **fields})

    def change(self, job: str, **fields) -> None:
        self.do(CHANGE, job=job, fields=fields)

    def train(self, job: str, first: int, last: int, *events: tuple[str, str, dict]) -> None:
        self.do(STEPS, job=job, first=first, last=last, events=events)

    def report(self, job: str) -> None:
        self.do(REPORT, job=job)

    def state(self, job: str) -> dict:
        return self.do(STATE, job=job)

    def do(self, code: str, **arguments) -> Any:
        """Raises ValueError when the code failed; why is on the standard error."""
        print(json.dumps([code, arguments]), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=30)


@pytest.fixture(scope="module")
def hands(site: Site) -> Iterator[Worker]:
    worker = Worker(site)
    yield worker
    worker.stop()


@pytest.fixture
def worker(hands: Worker) -> Iterator[Worker]:
    """No test leaves jobs in the queue of the next."""
    yield hands
    hands.do("FineTuningJob.objects.all().delete()")


@pytest.fixture
def ground(worker: Worker, tmp_path) -> str:
    """The name of a dataset that the base can learn from."""
    name = f"Answers {uuid4().hex[:6]}"
    worker.do(GROUND, folder=str(tmp_path), name=name)
    return name


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


def chart(page: Page, name: str = "Loss by step") -> Locator:
    return page.get_by_role("slider", name=name)


def job_of(page: Page) -> str:
    return re.search(r"/jobs/([0-9a-f-]{36})/", page.url)[1]


# --- from the form to the report to the queue -------------------------------------------------------------------------


def test_job_is_made_checked_read_and_started(page: Page, worker: Worker, ground: str):
    page.goto("/jobs/new/")
    page.get_by_label("Dataset").select_option(label=f"{ground}, version 1 (240 rows)")
    page.get_by_label("Base model").select_option("tiny-base")  # while the answer to the other choice is on its way
    expect(page.get_by_text("Empty: tiny-base-answers")).to_be_visible()
    page.get_by_label("Name of the job").fill("Careful one")
    page.get_by_label("Sample prompts").fill("When are you open?")
    page.get_by_text("Hyperparameters", exact=True).click()
    page.get_by_label("Learning rate", exact=True).fill("1e-4")
    page.get_by_label("Check first").check()
    page.get_by_role("button", name="Create the job").dblclick()
    expect(page.get_by_role("heading", name="The data is being checked")).to_be_visible()
    worker.report(job_of(page))
    expect(page.get_by_role("heading", name="Ready to be trained")).to_be_visible()
    expect(page.get_by_role("group", name="Sample row")).to_contain_text("Monday to Friday, nine to six.")
    page.get_by_role("button", name="Start the training").click()
    expect(page.get_by_text("The job starts when its turn comes.")).to_be_visible()
    assert worker.state(job_of(page)) == {"status": "queued", "retries": 0, "is_held": False}
    page.goto("/jobs/")
    expect(page.get_by_role("link", name="Careful one")).to_have_count(1)


def test_wrong_field_is_found_and_nothing_is_lost(page: Page, ground: str, complaints: list[str]):
    page.goto("/jobs/new/?method=lora_sft&base=tiny-base")
    page.get_by_label("Name of the job").fill("Half done")
    page.get_by_text("Hyperparameters", exact=True).click()
    page.get_by_label("Learning rate", exact=True).fill("fast")
    page.get_by_role("button", name="Create the job").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was created yet.")
    expect(page.get_by_label("Name of the job")).to_have_value("Half done")
    expect(page.get_by_label("Learning rate", exact=True)).to_have_value("fast")
    expect(page.get_by_text("This must be a number.")).to_be_visible()
    complaints.clear()  # Chromium says that the answer was a 400


def test_another_method_asks_for_other_data_and_keeps_the_name(page: Page, ground: str):
    page.goto("/jobs/new/")
    page.get_by_label("Name of the job").fill("Pairs")
    page.get_by_label("Preference pairs (DPO)").check()
    expect(page.get_by_text("This method needs preference pairs.")).to_be_visible()
    expect(page.get_by_label("Preference pairs (DPO)")).to_be_focused()
    expect(page.get_by_label("Name of the job")).to_have_value("Pairs")
    expect(page.get_by_label("Dataset").locator("option", has_text=ground)).to_have_count(0)


# --- live -------------------------------------------------------------------------------------------------------------


def test_curve_grows_live_survives_a_reload_and_ends_in_a_version(page: Page, worker: Worker):
    job = worker.make("Grows", phase="training", steps=20, total_steps=120)
    page.goto(f"/jobs/{job}/")
    expect(chart(page)).to_have_attribute("aria-valuetext", re.compile("^Step 20: "))
    samples = {"step": 30, "answers": [{"prompt": "When?", "text": "<b>Nine</b> to six.", "has_stopped": True}]}
    worker.train(job, 21, 30, ("samples", "Sample answers after step 30.", samples))
    expect(chart(page)).to_have_attribute("aria-valuetext", re.compile("^Step 30: .*held out"))
    expect(page.get_by_text("step 30 of 120")).to_be_visible()
    expect(page.get_by_text("about 10 min left")).to_be_visible()
    expect(page.get_by_text("<b>Nine</b> to six.")).to_be_visible()
    page.reload()
    expect(chart(page)).to_have_attribute("aria-valuetext", re.compile("^Step 30: "))
    expect(page.locator("#log li")).to_have_count(1)
    worker.train(job, 31, 40, ("checkpoint", "Checkpoint at step 40.", {"step": 40}))
    expect(chart(page)).to_have_attribute("aria-valuetext", re.compile("^Step 40: "))
    expect(page.locator("#log li")).to_have_text([re.compile("Sample answers"), re.compile("Checkpoint at step 40")])
    worker.change(job, status="succeeded", phase="")
    expect(page.get_by_role("heading", name="Succeeded")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_chart_is_read_by_keyboard_and_as_a_table(page: Page, worker: Worker):
    job = worker.make("Read", phase="training", steps=20)
    page.goto(f"/jobs/{job}/")
    loss = chart(page)
    loss.focus()
    page.keyboard.press("ArrowLeft")
    expect(loss).to_have_attribute("aria-valuenow", "19")
    page.keyboard.press("Home")
    expect(loss).to_have_attribute("aria-valuenow", "1")
    expect(page.locator("#chart-loss .chart__readout")).to_contain_text("Step 1: training 1.818")
    page.locator("#chart-loss summary").click()
    expect(page.locator("#chart-loss tr")).to_have_count(21)
    expect(page.locator("#chart-loss tr").nth(10)).to_contain_text("1.05")


def test_resumed_run_takes_its_later_steps_back(page: Page, worker: Worker):
    job = worker.make("Again", phase="training", steps=30)
    page.goto(f"/jobs/{job}/")
    expect(chart(page)).to_have_attribute("aria-valuenow", "30")
    worker.do("JobMetric.objects.filter(job=arguments['job'], step__gt=20).delete()\n", job=job)
    worker.change(job, step=20)
    expect(chart(page)).to_have_attribute("aria-valuenow", "20")
    worker.train(job, 21, 25)
    expect(chart(page)).to_have_attribute("aria-valuenow", "25")


def test_page_comes_back_by_itself_when_the_server_does(page: Page, site: Site, worker: Worker):
    job = worker.make("Patient", phase="training", steps=10)
    page.goto(f"/jobs/{job}/")
    expect(chart(page)).to_have_attribute("aria-valuenow", "10")
    site.kill_web()
    expect(page.get_by_text("The connection is lost. The training goes on")).to_be_visible()
    worker.train(job, 11, 20)
    site.restart_web()
    expect(chart(page)).to_have_attribute("aria-valuenow", "20")
    expect(page.locator("#connection")).to_be_hidden()


def test_job_is_cancelled_after_a_question(page: Page, worker: Worker):
    job = worker.make("Unwanted", phase="training", steps=10)
    page.goto(f"/jobs/{job}/")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()
    assert worker.state(job)["status"] == "cancelled"
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("The job goes on from its last checkpoint")).to_be_visible()


def test_failure_is_shown_live_and_tried_again_with_half_the_batch(page: Page, worker: Worker, ground: str):
    job = worker.make("Too large", phase="training", steps=5, base="tiny-base", target="half")
    page.goto(f"/jobs/{job}/")
    worker.change(
        job,
        status="failed",
        phase="",
        error_code="out_of_memory",
        error_message="The longest batch did not fit.",
        error_details={"suggestion": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}},
    )
    expect(page.get_by_role("heading", name="It ran out of memory")).to_be_visible()
    expect(page.locator(".job-failure__changes")).to_contain_text("Batch size 2")
    page.get_by_role("button", name="Try again with less memory").dblclick()
    expect(page.get_by_text("A new job was made from this one.")).to_be_visible()
    expect(page.get_by_text("Made from Too large, which failed.")).to_be_visible()
    assert worker.state(job)["retries"] == 1


def test_queue_is_live_and_can_be_put_in_order(page: Page, worker: Worker):
    for name in ("First", "Second"):
        worker.make(name, status="queued")
    page.goto("/jobs/")
    waiting = page.locator(".job-list__item strong")
    expect(waiting).to_have_text(["First", "Second"])
    page.get_by_role("button", name="Move Second up").click()
    expect(waiting).to_have_text(["Second", "First"])
    running = worker.make("Third", status="running", phase="training", steps=30)
    worker.change(running, total_steps=120)
    expect(page.get_by_role("link", name="Third")).to_be_visible()
    worker.train(running, 31, 60)
    expect(page.get_by_text("step 60 of 120")).to_be_visible()
    page.get_by_role("button", name="Pause the queue").click()
    expect(page.get_by_text("The queue is paused")).to_be_visible()
    page.get_by_role("button", name="Open the queue").click()
    expect(page.get_by_text("The queue is paused")).to_have_count(0)


def test_schedule_is_made_in_words(page: Page, ground: str):
    page.goto("/jobs/schedules/new/")
    page.get_by_label("Base model").select_option("tiny-base")
    page.get_by_label("Dataset").select_option(label=ground)
    name = f"Schedule {ground}"
    page.get_by_label("Name of the schedule").fill(name)
    page.get_by_label("Every", exact=True).select_option("month")
    page.get_by_label("on day").select_option("15")
    page.get_by_label("at", exact=True).fill("06:30")
    page.get_by_role("button", name="Create the schedule").click()
    expect(page.get_by_text("On day 15 of each month at 06:30").first).to_be_visible()
    page.get_by_role("button", name=f"Pause {name}").click()
    expect(page.get_by_role("button", name=f"Continue {name}")).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name=f"Delete {name}").click()
    expect(page.get_by_role("link", name=name)).to_have_count(0)


# --- everybody --------------------------------------------------------------------------------------------------------


def each_page(worker: Worker) -> list[str]:
    running = worker.make("A training with quite a long name", phase="training", steps=40)
    worker.make("Waits", status="queued")
    checked = worker.make("Checked", status="queued", is_held=True)
    worker.report(checked)
    failed = worker.make("Failed", status="failed", error_code="disk", error_message="The disk is full.")
    jobs = [f"/jobs/{running}/", f"/jobs/{checked}/preflight/", f"/jobs/{failed}/"]
    return ["/jobs/", *jobs, "/jobs/new/", "/jobs/schedules/", "/jobs/schedules/new/"]


def test_every_control_has_a_name(page: Page, worker: Worker, ground: str):
    for address in each_page(worker):
        page.goto(address)
        assert page.evaluate(UNNAMED) == [], address


def test_pages_fit_a_phone(phone: Page, worker: Worker, ground: str):
    for address in each_page(worker):
        phone.goto(address)
        expect(phone.locator("h1")).to_be_visible()
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390, address
        small = [html for html in phone.evaluate(SMALL) if "As a table" not in html]
        assert small == [], address


def test_job_fills_in_nothing_for_somebody_without_scripts(
    chromium: Browser, site: Site, signed_in: dict, worker: Worker
):
    job = worker.make("Plain", phase="training", steps=10)
    context = chromium.new_context(base_url=site.address, storage_state=signed_in, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"/jobs/{job}/")
    expect(page.get_by_text("step 10 of 120")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()
    context.close()
