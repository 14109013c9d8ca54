"""Which prompts base and version answer side by side: nobody's own words without a consent that still holds."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import uuid4

import pytest
from django.utils import timezone

from accounts.models import User
from chat.models import Conversation
from finetuning.jobs.states import Lease, Status
from finetuning.models import Evaluation, FineTuningJob, VersionContributor
from finetuning.versions.evaluations import (
    FIXED_PROMPTS,
    MAX_HELD_OUT,
    MAX_OWN_PROMPTS,
    MAX_PROMPT_CHARS,
    _answers,
    _as_told,
    _keep,
    choose_prompts,
)
from models_hub.models import PRODUCTION
from tests.chat.conftest import make_conversation
from tests.finetuning.job_rows import CLASSIFIED, make_job, make_result, make_version


@pytest.fixture
def job(alice, settings, tmp_path) -> FineTuningJob:
    settings.DIALOOP = replace(settings.DIALOOP, data_dir=tmp_path)
    version = make_version(rows=100)
    version.folder = "datasets/1/v1"
    version.counts = {"train": 50, "validation": 0, "test": 50}
    version.save()
    (tmp_path / version.folder).mkdir(parents=True)
    return make_job(alice, dataset_version=version, sample_prompts=["What is our word?"])


def write_test_split(tmp_path, rows) -> None:
    (tmp_path / "datasets/1/v1/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def row(said: str, *, contributor: int | None = None, **more) -> dict:
    turns = [{"role": "user", "content": said}, {"role": "assistant", "content": "yes"}]
    where = {"contributor": contributor, "conversation": str(uuid4()) if contributor else None}
    return {"id": 1, "hash": "x", "group": "", "label": "", "content": {"messages": turns}, **where, **more}


def said(prompts, source: str) -> list[str]:
    return [prompt["messages"][-1]["content"] for prompt in prompts if prompt["source"] == source]


def test_fixed_sample_and_held_out_prompts_are_asked(job, tmp_path):
    write_test_split(tmp_path, [row(f"held {number}") for number in range(9)] + [row("held 0")])
    prompts = list(choose_prompts(job))
    assert said(prompts, "fixed") == json.loads(FIXED_PROMPTS.read_text())
    assert said(prompts, "sample") == ["What is our word?"]
    assert said(prompts, "held out") == [f"held {number}" for number in range(MAX_HELD_OUT)]


def test_own_prompts_are_of_people_who_consent_and_name_their_conversation(job, tmp_path, alice, bob):
    alice.training_consent_at = timezone.now()
    alice.save()
    rows = [row(f"alice {number}", contributor=alice.pk) for number in range(12)]
    write_test_split(tmp_path, [*rows, row("bob said", contributor=bob.pk)])
    prompts = list(choose_prompts(job))
    assert said(prompts, "conversation") == [f"alice {number}" for number in range(MAX_OWN_PROMPTS)]
    own = [prompt for prompt in prompts if prompt["source"] == "conversation"]
    assert [prompt["conversation"] for prompt in own] == [row["conversation"] for row in rows[:MAX_OWN_PROMPTS]]
    assert "bob said" not in json.dumps(prompts)


def test_people_are_asked_for_beyond_the_data_where_it_holds_too_few(job, tmp_path, alice, bob):
    """What they began a conversation with, newest first, and nothing that was trained on."""
    User.objects.filter(pk=alice.pk).update(training_consent_at=timezone.now())
    write_test_split(tmp_path, [row("held")])
    talks = [make_conversation(alice, "T", f"question {number}", "yes") for number in range(MAX_OWN_PROMPTS + 2)]
    make_conversation(bob, "T", "never agreed", "yes")
    VersionContributor.objects.create(
        version=job.dataset_version, contributor_id=alice.pk, conversation_id=talks[-1].pk, rows=1
    )
    Conversation.objects.filter(pk=talks[-2].pk).update(is_excluded_from_training=True)
    prompts = list(choose_prompts(job))
    assert said(prompts, "conversation") == [f"question {number}" for number in reversed(range(MAX_OWN_PROMPTS))]
    own = [prompt for prompt in prompts if prompt["source"] == "conversation"]
    assert {(prompt["contributor"], prompt["conversation"]) for prompt in own} == {
        (alice.pk, str(talk.pk)) for talk in talks[:-2]
    }


def test_prompt_that_is_too_long_to_read_is_left_out(job, tmp_path):
    write_test_split(tmp_path, [row("x" * (MAX_PROMPT_CHARS + 1)), row("short")])
    assert said(list(choose_prompts(job)), "held out") == ["short"]


def test_question_of_a_pair_is_its_prompt(job, tmp_path):
    content = {"prompt": [{"role": "user", "content": "which?"}], "chosen": [], "rejected": []}
    write_test_split(tmp_path, [row("unused", content=content)])
    assert said(list(choose_prompts(job)), "held out") == ["which?"]


def test_every_answer_to_a_person_names_its_conversation_whatever_else_the_child_did(job, tmp_path, alice):
    """It leaves out a prompt that does not fit, and adds held-out rows of its own choice."""
    alice.training_consent_at = timezone.now()
    alice.save()
    rows = [row(f"alice {number}", contributor=alice.pk) for number in range(3)]
    write_test_split(tmp_path, rows)
    prompts = list(choose_prompts(job))
    told = [{**prompt, "tuned": "yes"} for prompt in map(_as_told, prompts)]
    chosen = {"source": "held out", "messages": [{"role": "user", "content": "alice 0"}], "tuned": "yes"}
    kept = _answers({"answers": [chosen, *told[:-2], told[-1]]}, prompts)
    assert [answer.get("conversation") for answer in kept if answer["source"] == "conversation"] == [
        rows[0]["conversation"],
        rows[2]["conversation"],
    ]
    assert [answer["source"] for answer in kept].count("held out") == 0
    assert all("contributor" not in answer for answer in kept if answer["source"] in ("fixed", "sample"))


# --- what comes of it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "answers"), [("worse_than_base", True), ("no_better_than_majority", False)])
def test_first_version_answers_at_once_unless_it_has_learned_nothing(job, code, answers):
    job.owner_token = uuid4()
    job.save()
    version = make_result(job, status=Evaluation.Status.RUNNING)
    result = {"after": CLASSIFIED, "answers": [], "warnings": [{"code": code, "message": "See for yourself."}]}
    _keep(job, version, version.evaluations.get(), Lease(job.pk, job.owner_token), result)
    job.refresh_from_db()
    assert job.status == Status.SUCCEEDED
    assert version.model.aliases.filter(name=PRODUCTION, version=version).exists() is answers
    assert job.events.filter(code="not_promoted").exists() is not answers
