"""Fine-tuning jobs: the row is the truth, a lease says who works for it, a child process does the work."""

from finetuning.jobs.bases import suggest_target, trainable_bases
from finetuning.jobs.control import (
    cancel_job,
    open_queue,
    pause_queue,
    resume_job,
    retry_job,
    set_priority,
    start_job,
)
from finetuning.jobs.creation import create_job
from finetuning.jobs.selectors import get_job, list_events, list_jobs, list_metrics, queue_state

__all__ = [
    "cancel_job",
    "create_job",
    "get_job",
    "list_events",
    "list_jobs",
    "list_metrics",
    "open_queue",
    "pause_queue",
    "queue_state",
    "resume_job",
    "retry_job",
    "set_priority",
    "start_job",
    "suggest_target",
    "trainable_bases",
]
