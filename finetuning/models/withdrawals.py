"""What was taken back out of frozen versions."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from finetuning.models.datasets import DatasetVersion


class Withdrawal(models.Model):
    """Rows of one conversation that a frozen version once held. It outlives them: models may have learned from them."""

    version = models.ForeignKey(DatasetVersion, on_delete=models.CASCADE, related_name="withdrawals")
    # Plain ids, as in `VersionContributor`: the trace must outlive the person's account.
    contributor_id = models.BigIntegerField()
    conversation_id = models.UUIDField(null=True)
    rows = models.PositiveIntegerField(default=0)
    corrections = models.PositiveIntegerField(default=0)
    withdrawn_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "contributor_id", "conversation_id"], name="finetuning_withdrawal_unique"
            )
        ]
        indexes = [models.Index(fields=["contributor_id"], name="finetuning_withdrawal_person")]

    def __str__(self) -> str:
        return f"{self.contributor_id} out of {self.version_id}"
