"""Datasets and their frozen versions, fine-tuning jobs and schedules, evaluations and lineage."""

from finetuning.models.datasets import (
    Dataset,
    DatasetImport,
    DatasetVersion,
    Example,
    ImportProblem,
    VersionContributor,
)
from finetuning.models.evaluations import Evaluation, EvaluationContributor, Lineage
from finetuning.models.jobs import FineTuningJob, JobEvent, JobMetric, Schedule, TrainingQueue
from finetuning.models.withdrawals import Withdrawal

__all__ = [
    "Dataset",
    "DatasetImport",
    "DatasetVersion",
    "Evaluation",
    "EvaluationContributor",
    "Example",
    "FineTuningJob",
    "ImportProblem",
    "JobEvent",
    "JobMetric",
    "Lineage",
    "Schedule",
    "TrainingQueue",
    "VersionContributor",
    "Withdrawal",
]
