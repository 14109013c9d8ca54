"""The pages about jobs and schedules: each state renders, members stay out, and what is refused is said in place."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from finetuning.models import (
    Dataset,
    DatasetVersion,
    Example,
    FineTuningJob,
    JobMetric,
    Lineage,
    Schedule,
    TrainingQueue,
)
from finetuning.pages import job_forms
from finetuning.pages.job_reads import reorder
from finetuning.pages.schedule_forms import describe_cron
from finetuning.templatetags.job_figures import bytes_of, duration, figure, percent
from models_hub.models import Alias, AliasEvent
from tests.finetuning.job_rows import (
    CLASSIFIED,
    PREFLIGHT,
    Status,
    add_event,
    add_steps,
    make_base,
    make_job,
    make_result,
    make_version,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def curator(admin_user) -> Client:
    return sign_in(admin_user)


@pytest.fixture
def member(alice) -> Client:
    return sign_in(alice)


@pytest.fixture(autouse=True)
def trainable(monkeypatch):
    """The weights of the base need not be on the disk for a page."""
    monkeypatch.setattr(job_forms, "trainable_bases", lambda method, *, user: ["smollm2-135m-instruct"])


def sign_in(user) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def text(response) -> str:
    return response.content.decode()


# --- who may ----------------------------------------------------------------------------------------------------------


def test_members_are_refused_and_strangers_sign_in(admin_user, member, client):
    job = make_job(admin_user)
    for name in ("list", "new", "schedules", "new_schedule"):
        assert member.get(reverse(f"jobs:{name}")).status_code == 403
        assert client.get(reverse(f"jobs:{name}")).status_code == 302
    for name in ("job", "preflight"):
        assert member.get(reverse(f"jobs:{name}", args=[job.pk])).status_code == 403
    for name in ("start", "cancel", "resume", "retry", "move", "promote"):
        assert member.post(reverse(f"jobs:{name}", args=[job.pk])).status_code == 403
    assert member.post(reverse("jobs:pause_queue")).status_code == 403
    job.refresh_from_db()
    assert (job.status, FineTuningJob.objects.count()) == (Status.RUNNING, 1)


def test_member_sees_no_link_to_trainings(member, curator):
    assert 'href="/jobs/"' not in text(member.get("/models/"))
    assert 'href="/jobs/"' in text(curator.get("/models/"))


def test_unknown_job_is_not_found(curator):
    assert curator.get(reverse("jobs:job", args=[uuid4()])).status_code == 404
    assert curator.get(reverse("jobs:schedule", args=[99])).status_code == 404


# --- the list ---------------------------------------------------------------------------------------------------------


def test_list_shows_every_job_where_it_stands(admin_user, curator):
    version = make_version()
    for status in Status:
        make_job(admin_user, status, name=f"It is {status.value}", dataset_version=version, run_at=timezone.now())
    make_job(admin_user, Status.QUEUED, name="It is held", dataset_version=version, is_held=True)
    page = text(curator.get(reverse("jobs:list")))
    for status in Status:
        assert f"It is {status.value}" in page
    assert page.index("Checked, waiting for you") < page.index("It is held") < page.index("Later")


def test_empty_list_offers_a_new_job(curator):
    assert "Nothing is running and nothing waits." in text(curator.get(reverse("jobs:list")))


def test_list_asks_as_much_for_many_jobs_as_for_few(admin_user, curator, django_assert_max_num_queries):
    version = make_version()
    for number in range(15):
        for status in Status:
            make_job(admin_user, status, name=f"{number}", dataset_version=version, run_at=timezone.now())
    with django_assert_max_num_queries(25):
        assert curator.get(reverse("jobs:list")).status_code == 200


def test_ended_jobs_are_filtered_and_paged(admin_user, curator):
    version = make_version()
    for number in range(25):
        ended = timezone.now() - timedelta(minutes=number)
        make_job(admin_user, Status.FAILED, name=f"failed {number:02}", dataset_version=version, finished_at=ended)
    make_job(admin_user, Status.SUCCEEDED, name="went well", dataset_version=version)
    page = text(curator.get(reverse("jobs:list"), {"status": "failed"}))
    assert "went well" not in page
    assert "failed 00" in page
    assert "failed 20" not in page
    cursor = page.split("cursor=")[1].split('"')[0]
    more = curator.get(f"/jobs/?part=ended&status=failed&cursor={cursor}", headers={"HX-Request": "true"})
    assert "failed 20" in text(more)
    assert "failed 19" not in text(more)
    assert curator.get("/jobs/?cursor=made-up").status_code == 404


def test_queue_is_paused_and_opened(curator):
    curator.post(reverse("jobs:pause_queue"))
    assert TrainingQueue.objects.get().paused_at is not None
    assert "The queue is paused" in text(curator.get(reverse("jobs:list")))
    curator.post(reverse("jobs:open_queue"))
    assert TrainingQueue.objects.get().paused_at is None


def test_waiting_job_moves_by_one_place(admin_user, curator):
    version = make_version()
    names = ["first", "second", "third"]
    waiting = [make_job(admin_user, Status.QUEUED, name=name, dataset_version=version) for name in names]
    answer = curator.post(
        reverse("jobs:move", args=[waiting[2].pk]), {"direction": "up"}, headers={"HX-Request": "true"}
    )
    page = text(answer)
    assert page.index("first") < page.index("third") < page.index("second")
    curator.post(reverse("jobs:move", args=[waiting[0].pk]), {"direction": "down"})
    page = text(curator.get(reverse("jobs:list")))
    assert page.index("third") < page.index("first") < page.index("second")


@pytest.mark.parametrize("priorities", [(0, 0, 0, 0), (5, 5, 0, 0), (9, 3, 3, -2), (2, 1, 0, -1)])
@pytest.mark.parametrize("here", range(4))
@pytest.mark.parametrize("places", [-10, -2, -1, 1, 2, 10])
def test_reordering_puts_the_job_exactly_there(priorities, here, places):
    now = timezone.now()
    waiting = [
        FineTuningJob(priority=priority, queued_at=now + timedelta(seconds=number))
        for number, priority in enumerate(priorities)
    ]
    wanted = [job for job in waiting if job is not waiting[here]]
    wanted.insert(min(max(here - places, 0), 3), waiting[here])
    changed = reorder(waiting, waiting[here].pk, places=places)
    after = sorted(waiting, key=lambda job: (-changed.get(job, job.priority), job.queued_at))
    assert after == wanted


# --- one job ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", Status.values)
def test_job_in_every_state_renders_whole_and_as_a_fragment(admin_user, curator, status):
    job = make_job(admin_user, status, run_at=timezone.now(), phase="training")
    add_steps(job, 1, 5, evaluate_every=5)
    add_event(job, "started", "The training began.")
    for name in ("job", "preflight"):
        page = curator.get(reverse(f"jobs:{name}", args=[job.pk]))
        assert page.status_code == 200
        part = curator.get(reverse(f"jobs:{name}", args=[job.pk]), headers={"HX-Request": "true"})
        assert "<html" not in text(part)
        assert "data-revision" in text(part)


def test_job_can_be_cancelled_on_the_page_that_waits_for_its_report(admin_user, curator):
    job = make_job(admin_user, Status.VALIDATING_FILES)
    cancel = reverse("jobs:cancel", args=[job.pk])
    assert cancel in text(curator.get(reverse("jobs:preflight", args=[job.pk])))
    FineTuningJob.objects.filter(pk=job.pk).update(status=Status.CANCELLED)
    assert cancel not in text(curator.get(reverse("jobs:preflight", args=[job.pk])))


def test_page_holds_the_history_for_a_first_look(admin_user, curator):
    job = make_job(admin_user)
    add_steps(job, 1, 40)
    add_event(job, "started", "</script><script>alert(1)</script>")
    page = text(curator.get(reverse("jobs:job", args=[job.pk])))
    assert page.count('"learning_rate"') == JobMetric.objects.count() == 40
    assert "<script>alert" not in page


def test_failure_is_explained_and_offers_half_the_batch(admin_user, curator):
    details = {"suggestion": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}}
    job = make_job(
        admin_user,
        Status.FAILED,
        error_code="out_of_memory",
        error_message="The longest batch did not fit.",
        error_details=details,
        preflight=PREFLIGHT,
    )
    page = text(curator.get(reverse("jobs:job", args=[job.pk])))
    assert "It ran out of memory" in page
    assert "The longest batch did not fit." in page
    assert "<del>4</del> → <strong>2</strong>" in page
    assert "Try again with less memory" in page


def test_out_of_memory_found_by_the_check_offers_half_the_batch_too(admin_user, curator):
    error = {"code": "out_of_memory", "message": "Too much.", "suggestion": {"per_device_train_batch_size": 2}}
    details = {"errors": [error]}
    fields = {"error_code": "preflight", "error_message": "Too much.", "error_details": details}
    job = make_job(admin_user, Status.FAILED, preflight={**PREFLIGHT, "errors": [error]}, **fields)
    page = text(curator.get(reverse("jobs:job", args=[job.pk])))
    assert "It ran out of memory" in page
    assert "<del>4</del> → <strong>2</strong>" in page
    assert reverse("jobs:preflight", args=[job.pk]) in page


def test_retry_takes_the_suggestion_and_twice_is_once(admin_user, curator, base_is_here):
    details = {"suggestion": {"per_device_train_batch_size": 2}}
    fields = {"error_code": "out_of_memory", "error_message": "Too much.", "error_details": details}
    job = make_job(admin_user, Status.FAILED, hyperparameters={"learning_rate": 1e-4}, **fields)
    address = reverse("jobs:retry", args=[job.pk])
    first = curator.post(address, {"suggested": "1"})
    again = FineTuningJob.objects.get(retry_of=job)
    assert first["Location"] == reverse("jobs:job", args=[again.pk])
    assert again.hyperparameters == {"learning_rate": 1e-4, "per_device_train_batch_size": 2}
    assert curator.post(address, {"suggested": "1"})["Location"] == first["Location"]


def test_failure_nobody_knows_is_still_said(admin_user, curator):
    job = make_job(admin_user, Status.FAILED, error_code="new_kind", error_message="Something new.")
    page = text(curator.get(reverse("jobs:job", args=[job.pk])))
    assert "The job failed" in page
    assert "Something new." in page


def test_classifier_shows_matrix_classes_and_what_got_better(admin_user, curator):
    job = make_job(admin_user, Status.SUCCEEDED, method="classification", target="movie-sentiment")
    before = {**CLASSIFIED, "accuracy": 0.51, "macro_f1": 0.34}
    make_result(
        job, before=before, after=CLASSIFIED, general_before={"perplexity": 20.0}, general_after={"perplexity": 22.0}
    )
    page = text(curator.get(reverse("jobs:job", args=[job.pk])))
    assert "called negative" in page
    assert "737" in page
    assert "87.4 %" in page
    assert "better" in page
    assert "worse" in page


def test_answers_stand_side_by_side_and_are_escaped(admin_user, curator):
    job = make_job(admin_user, Status.SUCCEEDED)
    answers = [
        {
            "prompt": "When?",
            "source": "fixed",
            "base": "<b>I cannot know.</b>",
            "tuned": "Nine to six.",
            "tuned_stopped": False,
        }
    ]
    version = make_result(job, after={"eval_loss": 1.0}, before={"eval_loss": 2.0}, answers=answers)
    Lineage.objects.create(
        version=version,
        job=job,
        dataset_version=job.dataset_version,
        base_version=job.base_version,
        method=job.method,
        card="# Support answers\n\nTrained on <script>alert(1)</script>",
    )
    page = text(curator.get(reverse("jobs:job", args=[job.pk])))
    assert "&lt;b&gt;I cannot know.&lt;/b&gt;" in page
    assert "Nine to six." in page
    assert "Did not end by itself." in page
    assert "<h1" in page.split("Model card")[1]
    assert "<script>alert" not in page


def test_job_page_asks_a_bounded_number_of_times(admin_user, curator, django_assert_max_num_queries):
    job = make_job(admin_user, Status.SUCCEEDED)
    make_result(job, before={"eval_loss": 2.0}, after={"eval_loss": 1.0})
    add_steps(job, 1, 300)
    for number in range(50):
        add_event(job, "checkpoint", f"{number}")
    with django_assert_max_num_queries(25):
        assert curator.get(reverse("jobs:job", args=[job.pk])).status_code == 200


# --- the report -------------------------------------------------------------------------------------------------------


def test_report_shows_trained_tokens_refusals_and_estimate(admin_user, curator):
    job = make_job(
        admin_user, Status.QUEUED, is_held=True, preflight=PREFLIGHT, hyperparameters={"learning_rate": 1e-4}
    )
    page = text(curator.get(reverse("jobs:preflight", args=[job.pk])))
    assert "Ready to be trained" in page
    assert "Start the training" in page
    assert "[trained: </span>Monday to Friday, nine to six." in page
    assert "Two questions follow each other" in page
    assert "12 min 34 s" in page
    assert "2.7 GiB" in page
    assert "65 to 128" in page


def test_report_with_errors_offers_no_start(admin_user, curator):
    report = {
        **PREFLIGHT,
        "errors": [{"code": "missing_stop_token", "message": "It would never stop."}],
        "estimate": None,
    }
    job = make_job(admin_user, Status.QUEUED, is_held=True, preflight=report)
    page = text(curator.get(reverse("jobs:preflight", args=[job.pk])))
    assert "This cannot be trained yet" in page
    assert "It would never stop." in page
    assert "Start the training" not in page


# --- what people do ---------------------------------------------------------------------------------------------------


def test_cancel_start_and_resume_move_the_job(admin_user, curator):
    job = make_job(admin_user, Status.QUEUED, is_held=True, preflight=PREFLIGHT)
    curator.post(reverse("jobs:start", args=[job.pk]))
    job.refresh_from_db()
    assert (job.status, job.is_held) == (Status.QUEUED, False)
    curator.post(reverse("jobs:cancel", args=[job.pk]))
    job.refresh_from_db()
    assert job.status == Status.CANCELLED
    curator.post(reverse("jobs:resume", args=[job.pk]))
    job.refresh_from_db()
    assert job.status == Status.QUEUED


def test_action_that_is_refused_is_said_on_the_next_page(admin_user, curator):
    job = make_job(admin_user, Status.SUCCEEDED)
    page = curator.post(reverse("jobs:resume", args=[job.pk]), follow=True)
    assert "there is nothing to resume" in text(page)


def test_promotion_needs_a_reason_and_keeps_what_was_typed(admin_user, curator):
    job = make_job(admin_user, Status.SUCCEEDED, target="support")
    version = make_result(job, before={"eval_loss": 2.0}, after={"eval_loss": 1.0})
    address = reverse("jobs:promote", args=[job.pk])
    refused = curator.post(address, {"reason": "x" * 501})
    assert refused.status_code == 400
    assert "500 characters" in text(refused)
    assert "x" * 501 in text(refused)
    assert not Alias.objects.filter(model=version.model).exists()
    assert curator.post(address, {"reason": "Better in every answer."}).status_code == 302
    assert Alias.objects.get(model=version.model, name="production").version == version
    event = AliasEvent.objects.get(model=version.model)
    assert (event.actor, event.reason) == (admin_user, "Better in every answer.")
    assert "This version answers whoever talks to support." in text(curator.get(reverse("jobs:job", args=[job.pk])))


def test_version_without_an_evaluation_is_not_offered_for_promotion(admin_user, curator):
    job = make_job(admin_user, Status.RUNNING, target="support")
    make_result(job, is_evaluated=False)
    page = text(curator.get(reverse("jobs:job", args=[job.pk])))
    assert "It has not been evaluated yet." in page
    assert "promote-reason" not in page
    refused = curator.post(reverse("jobs:promote", args=[job.pk]), {"reason": "I like it."})
    assert refused.status_code == 400
    assert "evaluated" in text(refused)


# --- a new job --------------------------------------------------------------------------------------------------------


@pytest.fixture
def version(db) -> DatasetVersion:
    make_base()
    found = make_version()
    Example.objects.create(
        dataset=found.dataset,
        status=Example.Status.APPROVED,
        content_hash="1" * 64,
        content={"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    )
    return found


def filled(version: DatasetVersion, **changes) -> dict[str, str]:
    return {
        "method": "lora_sft",
        "base": "smollm2-135m-instruct",
        "data_source": f"version-{version.pk}",
        "start": "now",
        "request_key": "one click",
        **changes,
    }


@pytest.fixture
def base_is_here(monkeypatch, tmp_path):
    """`create_job` asks whether the folder of the base is there."""
    from finetuning.jobs import bases

    monkeypatch.setattr(bases, "version_folder", lambda version: tmp_path)


def test_double_click_makes_one_job(curator, version, base_is_here):
    first = curator.post(reverse("jobs:new"), filled(version))
    second = curator.post(reverse("jobs:new"), filled(version))
    job = FineTuningJob.objects.get()
    assert first["Location"] == second["Location"] == reverse("jobs:job", args=[job.pk])
    assert (job.dataset_version, job.target) == (version, "smollm2-135m-instruct-support-answers")


def test_form_hands_over_everything(curator, version, base_is_here):
    more = {
        "start": "check",
        "target": "harbour-answers",
        "name": "Try",
        "system_prompt": "Be brief.",
        "sample_prompts": "When?\n\n Where? ",
        "hp-learning_rate": "1e-4",
        "hp-num_train_epochs": "2",
        "hp-gradient_checkpointing": "true",
        "hp-lora_r": "",
    }
    answer = curator.post(reverse("jobs:new"), filled(version, **more))
    job = FineTuningJob.objects.get()
    assert answer["Location"] == reverse("jobs:preflight", args=[job.pk])
    assert job.is_held
    assert job.hyperparameters == {"learning_rate": 1e-4, "num_train_epochs": 2, "gradient_checkpointing": True}
    assert (job.target, job.name, job.sample_prompts) == ("harbour-answers", "Try", ["When?", "Where?"])


def test_time_is_read_in_the_readers_zone(curator, version, base_is_here):
    more = {"start": "later", "run_at": "2031-07-01T02:00", "time_zone": "Europe/Berlin"}
    curator.post(reverse("jobs:new"), filled(version, **more))
    job = FineTuningJob.objects.get()
    assert job.run_at.isoformat() == "2031-07-01T00:00:00+00:00"
    assert job.status == Status.SCHEDULED


WRONG = {
    "base": ({"base": "gpt-4o"}, "cannot be trained by this method"),
    "no base": ({"base": ""}, "Choose the model to train."),
    "data": ({"data_source": "version-999"}, "does not fit the method"),
    "no data": ({"data_source": ""}, "Choose what it learns from."),
    "target": ({"target": "Not A Slug"}, "cannot be the name of a model"),
    "time": ({"start": "later", "run_at": ""}, "Say when it should start."),
    "past": ({"start": "later", "run_at": "2020-01-01T02:00"}, "This moment has passed."),
    "no number": ({"hp-learning_rate": "fast"}, "This must be a number."),
    "no whole number": ({"hp-num_train_epochs": "1.5"}, "This must be a whole number."),
    "negative": ({"hp-learning_rate": "-1"}, "learning_rate must be greater than 0."),
    "unknown choice": ({"hp-precision": "int3"}, "Choose one of"),
    "too many prompts": ({"sample_prompts": "\n".join(map(str, range(11)))}, "At most 10 sample prompts"),
    "unknown method": ({"method": "magic"}, "Select a valid choice"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_field_is_said_and_nothing_typed_is_lost(curator, version, base_is_here, name):
    changes, sentence = WRONG[name]
    typed = {"name": "My first job", "system_prompt": "Be brief & kind.", "hp-weight_decay": "0.25"}
    answer = curator.post(reverse("jobs:new"), filled(version, **typed, **changes))
    page = text(answer)
    assert answer.status_code == 400
    assert sentence in page
    assert 'value="My first job"' in page
    assert "Be brief &amp; kind." in page
    assert 'value="0.25"' in page
    assert 'value="one click"' in page
    assert not FineTuningJob.objects.exists()


def test_another_method_shows_what_fits_it_and_keeps_the_rest(curator, version):
    make_version("Pairs", kind="preference")
    typed = filled(version, method="dpo", name="Mine", refresh="1")
    page = text(curator.post(reverse("jobs:new"), typed, headers={"HX-Request": "true"}))
    assert "<html" not in page
    assert "Pairs, version 1" in page
    assert "Support answers" not in page
    assert 'value="Mine"' in page
    assert 'placeholder="5e-6"' in page
    assert not FineTuningJob.objects.exists()


LEARNS = [("chat", "lora_sft"), ("kto", "kto"), ("classification", "classification")]


@pytest.mark.parametrize(("kind", "method"), LEARNS)
def test_page_of_a_version_leads_to_a_form_that_trains_on_it(curator, kind, method):
    version = make_version(f"Of {kind}", kind=kind)
    text_of_version = text(curator.get(reverse("datasets:version", args=[version.dataset_id, version.number])))
    link = re.search(r'href="([^"]+)">Train on it', text_of_version)[1]
    page = text(curator.get(html.unescape(link)))
    assert re.search(rf'value="{method}"[^>]* checked', page)
    assert re.search(rf'value="version-{version.pk}"[^>]* selected', page)


def test_method_without_data_says_what_is_missing(curator, version):
    page = text(curator.get(reverse("jobs:new"), {"method": "kto"}))
    assert "This method needs rated answers." in page
    assert "There is no such dataset yet" in page


def test_new_job_like_another_begins_with_its_fields(admin_user, curator, version):
    old = make_job(
        admin_user,
        Status.FAILED,
        dataset_version=version,
        hyperparameters={"learning_rate": 0.001, "gradient_checkpointing": True},
        sample_prompts=["When?", "Where?"],
    )
    page = text(curator.get(reverse("jobs:new"), {"from": str(old.pk)}))
    assert 'value="0.001"' in page
    assert "When?\nWhere?" in page
    assert f'value="version-{version.pk}" selected' in page
    assert curator.get(reverse("jobs:new"), {"from": "nonsense"}).status_code == 200


def test_deleted_datasets_are_not_offered(curator, version):
    Dataset.objects.update(deleted_at=timezone.now())
    assert "Support answers" not in text(curator.get(reverse("jobs:new")))


# --- schedules --------------------------------------------------------------------------------------------------------


def timetable(version: DatasetVersion, **changes) -> dict[str, str]:
    return filled(
        version, data_source=f"dataset-{version.dataset_id}", name="Every Sunday", time_zone="Europe/Berlin"
    ) | {
        "how_often": "weekly",
        "weekday": "sun",
        "at": "02:00",
        "min_new_examples": "50",
        **changes,
    }


def test_schedule_is_made_changed_paused_and_deleted(curator, version, base_is_here):
    assert curator.post(reverse("jobs:new_schedule"), timetable(version)).status_code == 302
    schedule = Schedule.objects.get()
    assert (schedule.cron, schedule.time_zone, schedule.min_new_examples) == ("0 2 * * sun", "Europe/Berlin", 50)
    page = text(curator.get(reverse("jobs:schedules")))
    assert "Every Sunday at 02:00" in page
    assert "if at least 50 approved examples are new" in page
    edit = reverse("jobs:schedule", args=[schedule.pk])
    assert 'value="02:00"' in text(curator.get(edit))
    assert curator.post(edit, timetable(version, how_often="monthly", day="15", at="06:30")).status_code == 302
    curator.post(reverse("jobs:switch_schedule", args=[schedule.pk]), {"is_enabled": "0"})
    schedule.refresh_from_db()
    assert (schedule.cron, schedule.is_enabled) == ("30 6 15 * *", False)
    curator.post(reverse("jobs:delete_schedule", args=[schedule.pk]))
    assert not Schedule.objects.exists()


WRONG_TIMES = {
    "no name": ({"name": " "}, "Give the schedule a name."),
    "no time": ({"at": ""}, "Say at what time."),
    "no line": ({"how_often": "cron", "cron": ""}, "Write a cron line"),
    "bad line": ({"how_often": "cron", "cron": "at noon"}, "is not a time"),
    "never": ({"how_often": "cron", "cron": "0 0 31 2 *"}, "never comes"),
    "too few": ({"min_new_examples": "-1"}, "greater than or equal to 0"),
}


@pytest.mark.parametrize("name", WRONG_TIMES)
def test_wrong_schedule_is_said_and_nothing_typed_is_lost(curator, version, base_is_here, name):
    changes, sentence = WRONG_TIMES[name]
    answer = curator.post(reverse("jobs:new_schedule"), timetable(version, system_prompt="Kept", **changes))
    assert answer.status_code == 400
    assert sentence in text(answer)
    assert "Kept" in text(answer)
    assert not Schedule.objects.exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 2 * * sun", "Every Sunday at 02:00"),
        ("5 14 * * *", "Every day at 14:05"),
        ("30 6 15 * *", "On day 15 of each month at 06:30"),
        ("*/5 * * * *", "At */5 * * * *"),
        ("0 2 1 * sun", "At 0 2 1 * sun"),
    ],
)
def test_cron_line_is_said_in_words(line, words):
    assert describe_cron(line) == words


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_are_short():
    assert [duration(value) for value in (None, 0, 59.6, 200, 3600, 7500, 90_000)] == [
        *("–", "0 s", "1 min", "3 min 20 s", "1 h", "2 h 5 min", "1 d 1 h")
    ]
    assert [figure(value) for value in (None, 1.23456, 2e-5, 0.0567, 1234567, 16, "cosine", True)] == [
        *("–", "1.235", "2e-5", "0.0567", "1,234,567", "16", "cosine", "yes")
    ]
    assert [percent(0.8745), percent(None), bytes_of(2_900_000_000), bytes_of(500)] == [
        "87.5 %",
        "–",
        "2.7 GiB",
        "500 B",
    ]
