"""What a training shows of people's words, before it is kept: without what was taken back while it was being made.

The clearing looks for words that are there. Whoever brings some later asks here first, in the transaction that keeps
them: `hold` makes one of the two wait for the other.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from finetuning.conversations.examples import withdrawn_rows
from finetuning.models import DatasetVersion, Evaluation, EvaluationContributor, VersionContributor


def hold(version: DatasetVersion) -> DatasetVersion:
    """As it is now, and as it stays until the end of this transaction."""
    return DatasetVersion.objects.select_for_update(no_key=True).get(pk=version.pk)


def keep_answers(evaluation: Evaluation, answers: list[dict[str, Any]]) -> None:
    """Into the object, which the caller saves in the same transaction: those to what may be asked to this day.

    Whose questions they answer is kept beside it, so that a withdrawal finds them.
    """
    asked = {(answer["contributor"], answer.get("conversation")) for answer in answers if "contributor" in answer}
    EvaluationContributor.objects.bulk_create(
        [EvaluationContributor(evaluation=evaluation, contributor_id=who, conversation_id=talk) for who, talk in asked]
    )
    evaluation.answers = answers
    drop_withdrawn_answers(evaluation)


def drop_withdrawn_answers(evaluation: Evaluation) -> bool:
    """Out of the object, and whose they were out of the database; whether there were any."""
    rows = withdrawn_rows(EvaluationContributor.objects.filter(evaluation=evaluation))
    gone = {(who, talk and str(talk)) for who, talk in rows.values_list("contributor_id", "conversation_id")}
    if not gone:
        return False
    evaluation.answers = [
        answer
        for answer in evaluation.answers
        if "contributor" not in answer or (answer["contributor"], answer.get("conversation")) not in gone
    ]
    rows.delete()
    return True


def without_samples_taken_back(version: DatasetVersion, report: dict[str, Any], *, since: datetime) -> dict[str, Any]:
    """The report of a check that began at `since`. Nobody knows whose its samples are, so they stay all or none."""
    held = hold(version)
    is_redacted = held.redacted_at is not None and held.redacted_at >= since
    is_tainted = withdrawn_rows(VersionContributor.objects.filter(version=held)).exists()
    return report | {"samples": []} if report.get("samples") and (is_redacted or is_tainted) else report
