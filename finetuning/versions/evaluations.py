"""Compares a trained version with its base, in a child process, and lets the first good one answer in chat."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils import timezone

from accounts.models import User
from chat.errors import InvalidError
from finetuning.conversations.examples import past_questions
from finetuning.conversations.taken_back import keep_answers
from finetuning.datasets import read_rows
from finetuning.jobs.control import resume_job
from finetuning.jobs.folders import EVALUATION, fresh_folder, job_folder, version_folder
from finetuning.jobs.leases import Heart
from finetuning.jobs.specs import make_spec, resolved
from finetuning.jobs.states import FREE, JobFailedError, Lease, LostLeaseError, Status, add_event, move
from finetuning.jobs.supervision import CancelledError, Supervision, check
from finetuning.models import Dataset, DatasetVersion, Evaluation, FineTuningJob, Lineage
from finetuning.versions.card import write_card
from models_hub.models import PRODUCTION, ModelVersion
from models_hub.services import AliasMoveError, move_alias
from models_hub.targets import CHAT

if TYPE_CHECKING:
    from uuid import UUID

FIXED_PROMPTS = Path(__file__).resolve().parent / "evaluation_prompts.json"
MAX_OWN_PROMPTS, MAX_HELD_OUT = 10, 5
MAX_PROMPT_CHARS = 4_000
HELD_OUT_SPLITS = ("test", "validation")
FIXED, SAMPLE, HELD_OUT, CONVERSATION = "fixed", "sample", "held out", "conversation"
USELESS = {"no_better_than_majority"}  # warnings of an evaluation
RESULTS = ("before", "after", "general_before", "general_after", "stop_rate_before", "stop_rate_after", "warnings")

logger = logging.getLogger(__name__)


def evaluate(job: FineTuningJob, lease: Lease, heart: Heart) -> None:
    """The last part of a job: blocks until base and version are compared. Then the job has succeeded.

    Raises JobFailedError, and what `Supervision.run` does: then the version stays, and resuming the job evaluates it.
    """
    version = ModelVersion.objects.select_related("model").get(pk=job.result_version_id)
    tuned = version_folder(version)
    if tuned is None:
        raise JobFailedError("not_there", f"The files of {version} are no longer in the model cache.")
    evaluation = _begin(version, job)
    prompts = list(choose_prompts(job)) if version.model.task == CHAT else []
    folder = job_folder(job.pk) / EVALUATION
    try:
        fresh_folder(folder)
        spec = make_spec(job, "evaluate", tuned=tuned, prompts=[_as_told(prompt) for prompt in prompts])
        result = Supervision(folder, spec, heart, hyperparameters=resolved(job)).run()
        check(heart)
    except OSError as error:
        _end_failed(evaluation, f"The job's folder could not be made: {error}.")
        raise JobFailedError("disk", f"The job's folder could not be made: {error}.") from error
    except JobFailedError as error:
        _end_failed(evaluation, error.message)
        raise
    except CancelledError:
        evaluation.delete()  # else it would look for ever as if somebody were at it
        raise
    finally:
        # It holds people's questions: the row alone is where a withdrawal looks.
        shutil.rmtree(folder, ignore_errors=True)
    _keep(job, version, evaluation, lease, {**result, "answers": _answers(result, prompts)})


def evaluate_version(version: ModelVersion) -> FineTuningJob:
    """For a version that was trained here and not compared yet: its job does that now. Raises InvalidError."""
    job = FineTuningJob.objects.filter(result_version=version).first()
    if job is None:
        raise InvalidError(f"{version} was not trained here, so there is nothing to compare it with.")
    if version.evaluated_at is not None:
        raise InvalidError(f"{version} has been evaluated already.")
    return resume_job(job)


# --- prompts ----------------------------------------------------------------------------------------------------------


def choose_prompts(job: FineTuningJob) -> Iterator[dict[str, Any]]:
    """Fixed ones, those of the job, some held-out rows, and what people who agreed to it have asked.

    Their questions come from held-out conversations, and where those are too few, from others that it has not learned.
    """
    for text in json.loads(FIXED_PROMPTS.read_text()):
        yield {"messages": [_asked(text)], "source": FIXED}
    for text in job.sample_prompts:
        yield {"messages": [_asked(text)], "source": SAMPLE}
    version = job.dataset_version
    if version.kind in (Dataset.Kind.CHAT, Dataset.Kind.PREFERENCE, Dataset.Kind.KTO):
        held_out = list(_held_out_prompts(version))
        yield from held_out
        yield from _past_prompts(version, held_out)


def _held_out_prompts(version: DatasetVersion) -> Iterator[dict[str, Any]]:
    split = next((name for name in HELD_OUT_SPLITS if version.counts.get(name)), None)
    if split is None:
        return
    consenting = set(User.objects.filter(training_consent_at__isnull=False).values_list("pk", flat=True))
    own, others, seen = 0, 0, set()
    for row in read_rows(version, split):
        messages = _question(row["content"])
        is_own = row.get("contributor") is not None
        if not messages or str(messages) in seen or (is_own and row["contributor"] not in consenting):
            continue
        seen.add(str(messages))
        if is_own and own < MAX_OWN_PROMPTS:
            own += 1
            where = {"contributor": row["contributor"], "conversation": row.get("conversation")}
            yield {"messages": messages, "source": CONVERSATION, **where}
        elif not is_own and others < MAX_HELD_OUT:
            others += 1
            yield {"messages": messages, "source": HELD_OUT}


def _past_prompts(version: DatasetVersion, asked: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen = {str(prompt["messages"]) for prompt in asked}
    room = MAX_OWN_PROMPTS - sum(prompt["source"] == CONVERSATION for prompt in asked)
    for question in past_questions(not_of=version, longest=MAX_PROMPT_CHARS, limit=max(0, room)):
        messages = [_asked(question.content)]
        if str(messages) in seen:
            continue
        seen.add(str(messages))
        where = {"contributor": question.conversation.owner_id, "conversation": str(question.conversation_id)}
        yield {"messages": messages, "source": CONVERSATION, **where}


def _question(content: dict[str, Any]) -> list[dict[str, str]]:
    """What came before the last answer; nothing when it is too long to be read side by side."""
    messages = list(content.get("messages") or content.get("prompt") or ())
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    size = sum(len(message["content"]) for message in plain)
    return plain if plain and plain[-1]["role"] == "user" and size <= MAX_PROMPT_CHARS else []


def _asked(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _as_told(prompt: dict[str, Any]) -> dict[str, Any]:
    """The child learns nothing about people."""
    return {"messages": prompt["messages"], "source": prompt["source"]}


def _answers(result: dict[str, Any], prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whose conversation a prompt is from is kept beside it: a withdrawal must find it.

    The child leaves out what does not fit its model, and where no held-out row is given it takes some by itself; of
    those nobody would know whose they are, so they are not kept.
    """
    answers = result.get("answers") or []
    if not prompts:
        return answers
    given = {_key_of(prompt): prompt for prompt in prompts}
    whose = ("contributor", "conversation")
    return [
        {**answer, **{name: prompt[name] for name in whose if name in prompt}}
        for answer in answers
        if (prompt := given.get(_key_of(answer))) is not None
    ]


def _key_of(asked: dict[str, Any]) -> str:
    return json.dumps([asked["source"], asked["messages"]])


# --- rows -------------------------------------------------------------------------------------------------------------


def _begin(version: ModelVersion, job: FineTuningJob) -> Evaluation:
    """One that was begun and interrupted is not kept: it says nothing."""
    with transaction.atomic():
        Evaluation.objects.filter(version=version, job=job, status=Evaluation.Status.RUNNING).delete()
        return Evaluation.objects.create(version=version, job=job)


def _end_failed(evaluation: Evaluation, message: str) -> None:
    running = Evaluation.objects.filter(pk=evaluation.pk, status=Evaluation.Status.RUNNING)
    running.update(status=Evaluation.Status.FAILED, error_message=message)


def _keep(
    job: FineTuningJob, version: ModelVersion, evaluation: Evaluation, lease: Lease, result: dict[str, Any]
) -> None:
    """The evaluation, the version's right to be promoted, and the end of the job, at once. Raises LostLeaseError."""
    with transaction.atomic():
        for name in RESULTS:
            default = getattr(evaluation, name)
            setattr(evaluation, name, default if result.get(name) is None else result[name])
        keep_answers(evaluation, result.get("answers") or [])
        evaluation.status = Evaluation.Status.COMPLETE
        evaluation.save(update_fields=["status", "answers", *RESULTS])
        version.evaluated_at = timezone.now()
        version.save(update_fields=["evaluated_at"])
        _rewrite_card(version, job, evaluation)
        if not _succeed(job.pk, lease, version):
            raise LostLeaseError
        _promote_first(version, job, evaluation)
    logger.info("job %s: %s is evaluated", job.pk, version)


def _rewrite_card(version: ModelVersion, job: FineTuningJob, evaluation: Evaluation) -> None:
    lineage = Lineage.objects.select_related("base_version__model").filter(version=version).first()
    if lineage is not None:
        lineage.card = write_card(version, lineage, job, evaluation)
        lineage.save(update_fields=["card"])


def _promote_first(version: ModelVersion, job: FineTuningJob, evaluation: Evaluation) -> None:
    """A model that has nothing to answer with gets this version at once; of any other a person decides.

    And of one that has learned nothing: an answer that is no better than none would look like one.
    """
    if any(warning["code"] in USELESS for warning in evaluation.warnings):
        add_event(job.pk, "not_promoted", "It has learned nothing of use, so it does not answer in chat by itself.")
        return
    production = version.model.aliases.select_related("version").filter(name=PRODUCTION).first()
    if production is not None and production.version.is_ready and production.version.retired_at is None:
        return
    reason = "The first version of this model that can answer; it has been evaluated."
    try:
        move_alias(version.model, PRODUCTION, version, actor=job.created_by, reason=reason)
    except AliasMoveError as error:  # retired meanwhile, say: its evaluation is kept all the same
        logger.warning("%s does not become production: %s", version, error)


def _succeed(job_id: UUID, lease: Lease, version: ModelVersion) -> bool:
    return move(
        job_id,
        come_from=[Status.RUNNING],
        to=Status.SUCCEEDED,
        owner=lease.token,
        code="succeeded",
        message=f"{version} is ready to be promoted.",
        data={"version": str(version)},
        phase="",
        finished_at=timezone.now(),
        **FREE,
    )
