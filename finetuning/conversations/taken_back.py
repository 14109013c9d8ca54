"""What a training shows of people's words, before it is kept: without what was taken back while it was being made.

The clearing looks for words that are there. Whoever brings some later asks here first, in the transaction that keeps
them: `hold` makes one of the two wait for the other.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Q

from finetuning.conversations.examples import withdrawn_rows
from finetuning.models import DatasetVersion, VersionContributor


def hold(version: DatasetVersion) -> DatasetVersion:
    """As it is now, and as it stays until the end of this transaction."""
    return DatasetVersion.objects.select_for_update(no_key=True).get(pk=version.pk)


def without_taken_back(version: DatasetVersion, answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those to prompts out of files and fixed lists, and to those of conversations that the version may still hold."""
    held = hold(version)
    asked = {answer["conversation"] for answer in answers if answer.get("conversation")}
    rows = VersionContributor.objects.filter(Q(conversation_id__in=asked) | Q(conversation_id=None), version=held)
    allowed = rows.exclude(pk__in=withdrawn_rows(rows).values("pk"))
    whose = {(contributor, str(talk)) for contributor, talk in allowed.values_list("contributor_id", "conversation_id")}
    return [
        answer
        for answer in answers
        if "contributor" not in answer or (answer["contributor"], str(answer.get("conversation"))) in whose
    ]


def without_samples_taken_back(version: DatasetVersion, report: dict[str, Any], *, since: datetime) -> dict[str, Any]:
    """The report of a check that began at `since`. Nobody knows whose its samples are, so they stay all or none."""
    held = hold(version)
    is_redacted = held.redacted_at is not None and held.redacted_at >= since
    is_tainted = withdrawn_rows(VersionContributor.objects.filter(version=held)).exists()
    return report | {"samples": []} if report.get("samples") and (is_redacted or is_tainted) else report
