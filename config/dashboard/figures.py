"""The numbers of the dashboard, read from every part. Those that cost something are kept for a minute."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from django.conf import settings
from django.core.cache import cache
from django.db.models import Sum
from django.utils import timezone

from accounts.models import User
from accounts.selectors import count_waiting
from chat import usage
from chat.models import Conversation, Feedback
from config.app_settings import get_settings
from finetuning.models import Example, FineTuningJob, TrainingQueue

DAYS = 14
CACHE_KEY = "dashboard:figures"
CACHE_SECONDS = 60
Status = FineTuningJob.Status


@dataclass(frozen=True)
class Figures:
    """What changes slowly. Lists of days are in order and have no gap."""

    days: list[date]
    replies: list[int]
    failed: list[int]
    tokens: dict[str, list[int]]  # by model, a value for each day
    first_tokens: list[usage.FirstTokenTimes]
    training_minutes: list[float]
    failures: dict[str, int]
    people: int
    active_people: int
    good_ratings: int
    bad_ratings: int
    storage: dict[str, int]  # bytes

    @property
    def first_token_ms(self) -> int:
        """Over all models, each by how often it replied; 0 when nothing was timed."""
        values = [times.median_ms for times in self.first_tokens for _ in range(times.replies)]
        return usage.percentile(values, 50) if values else 0


@dataclass(frozen=True)
class Now:
    """What an admin looks at to see whether something waits for him."""

    waiting_people: int
    running: list[FineTuningJob]
    queued: int
    scheduled: int
    failed_this_week: int
    trained_hours: float
    to_review: int
    is_paused: bool


def get_figures() -> Figures:
    figures = cache.get(CACHE_KEY)
    if figures is None:
        figures = read_figures()
        cache.set(CACHE_KEY, figures, CACHE_SECONDS)
    return figures


def read_figures() -> Figures:
    since, until = usage.default_period(DAYS)
    days = [since + timedelta(days=number) for number in range(DAYS)]
    rows = usage.list_usage(user=None, since=since, until=until)
    week_ago = timezone.now() - timedelta(days=7)
    people = User.objects.filter(is_active=True)
    recent = Feedback.objects.filter(updated_at__gte=timezone.now() - timedelta(days=DAYS))
    return Figures(
        days=days,
        replies=[sum(row.replies for row in rows if row.day == day) for day in days],
        failed=[sum(row.failed for row in rows if row.day == day) for day in days],
        tokens=_tokens_by_model(rows, days),
        first_tokens=usage.measure_first_tokens(since, until),
        training_minutes=_training_minutes(days),
        failures=usage.count_failures(since, until),
        people=people.count(),
        active_people=Conversation.objects.filter(updated_at__gte=week_ago).values("owner").distinct().count(),
        good_ratings=recent.filter(rating=Feedback.Rating.GOOD).count(),
        bad_ratings=recent.filter(rating=Feedback.Rating.BAD).count(),
        storage=measure_storage(),
    )


def read_now() -> Now:
    week_ago = timezone.now() - timedelta(days=7)
    jobs = FineTuningJob.objects
    ended = jobs.filter(finished_at__gte=week_ago)
    seconds = ended.aggregate(total=Sum("training_seconds"))["total"] or 0.0
    return Now(
        waiting_people=count_waiting(),
        running=list(jobs.filter(status__in=(Status.RUNNING, Status.CANCELLING)).order_by("started_at")[:5]),
        queued=jobs.filter(status__in=(Status.QUEUED, Status.VALIDATING_FILES)).count(),
        scheduled=jobs.filter(status=Status.SCHEDULED).count(),
        failed_this_week=ended.filter(status=Status.FAILED).count(),
        trained_hours=seconds / 3600,
        to_review=Example.objects.filter(status=Example.Status.PENDING, dataset__deleted_at=None).count(),
        is_paused=TrainingQueue.objects.exclude(paused_at=None).exists(),
    )


def _tokens_by_model(rows: list[usage.UsageRow], days: list[date]) -> dict[str, list[int]]:
    """The models with the most tokens first."""
    place = {day: number for number, day in enumerate(days)}
    by_model: defaultdict[str, list[int]] = defaultdict(lambda: [0] * len(days))
    for row in rows:
        by_model[row.model][place[row.day]] += row.prompt_tokens + row.completion_tokens
    return dict(sorted(by_model.items(), key=lambda item: -sum(item[1])))


def _training_minutes(days: list[date]) -> list[float]:
    """Of the jobs that ended on each day."""
    since = datetime.combine(days[0], time.min, UTC)
    ended = FineTuningJob.objects.filter(finished_at__gte=since).values_list("finished_at", "training_seconds")
    minutes = dict.fromkeys(days, 0.0)
    for finished_at, seconds in ended:
        minutes[finished_at.astimezone(UTC).date()] += seconds / 60
    return [round(minutes[day], 1) for day in days]


def measure_storage() -> dict[str, int]:
    """Bytes on disk by what they are for; the same file is never counted twice."""
    data, models = get_settings().data_dir, get_settings().model_cache_dir
    parts = {"Datasets": data / "datasets", "Uploads": data / "uploads", "Training runs": data / "jobs"}
    sizes = {name: folder_size(folder) for name, folder in parts.items()}
    sizes["Models"] = folder_size(models)
    name = Path(str(settings.DATABASES["default"]["NAME"]))
    if name.is_absolute() and name.is_file():
        sizes["Database"] = sum(file.stat().st_size for file in name.parent.glob(f"{name.name}*"))
    return sizes


def folder_size(folder: Path) -> int:
    """Of the files themselves; links count nothing, and what vanishes meanwhile is passed over."""
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _sizes(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            try:
                yield entry.stat(follow_symlinks=False).st_size
            except OSError:
                continue
