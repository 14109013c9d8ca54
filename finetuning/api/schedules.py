"""`/api/schedules`: trainings that come again. For curators."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from ninja import Query, Router, Schema, Status
from pydantic import Field

from config.api_lists import NEXT, ListQuery, cut_list
from config.api_schema import RequestSchema
from finetuning import schedules
from finetuning.api.jobs import Job, find_the_dataset, job_to_dict
from finetuning.jobs import get_job
from finetuning.models import Schedule as ScheduleRow

router = Router()

SAME = (
    *("id", "name", "method", "base", "target", "hyperparameters", "system_prompt", "sample_prompts", "cron"),
    *("time_zone", "min_new_examples", "is_enabled", "last_checked_at", "last_outcome", "created_at"),
)


class Schedule(Schema):
    id: int
    name: str
    dataset: int
    method: str
    base: str
    target: str
    hyperparameters: dict[str, Any]
    system_prompt: str
    sample_prompts: list[str]
    cron: str = Field(description="minute hour day-of-month month day-of-week.")
    time_zone: str
    min_new_examples: int = Field(description="Approved since its last job; with fewer nothing is started.")
    is_enabled: bool
    next_run_at: datetime | None
    last_checked_at: datetime | None
    last_outcome: str
    created_at: datetime


class ScheduleList(Schema):
    items: list[Schedule]
    next_cursor: str | None = NEXT


class NewSchedule(RequestSchema):
    name: str = Field(examples=["Every Sunday"])
    dataset: int | str = Field(description="Its id or its name.", examples=["Support answers"])
    method: str = Field(examples=["lora_sft"])
    base: str = Field(examples=["smollm2-135m-instruct"])
    cron: str = Field(examples=["0 2 * * sun"])
    time_zone: str = Field("UTC", examples=["Europe/Berlin"])
    min_new_examples: int = Field(0, ge=0)
    target: str = ""
    hyperparameters: dict[str, Any] = {}
    system_prompt: str = ""
    sample_prompts: list[str] = []
    is_enabled: bool = True


class ScheduleChange(RequestSchema):
    name: str | None = Field(None, examples=["Every Monday"])
    dataset: int | str | None = Field(None, examples=["Support answers"])
    method: str | None = Field(None, examples=["lora_sft"])
    base: str | None = Field(None, examples=["smollm2-135m-instruct"])
    cron: str | None = Field(None, examples=["0 2 * * mon"])
    time_zone: str | None = Field(None, examples=["Europe/Berlin"])
    min_new_examples: int | None = Field(None, ge=0)
    target: str | None = Field(None, examples=["my-model"])
    hyperparameters: dict[str, Any] | None = None
    system_prompt: str | None = None
    sample_prompts: list[str] | None = None
    is_enabled: bool | None = None


class RunNow(Schema):
    job: Job | None = Field(description="Null: nothing was started.")
    outcome: str


@router.get("", response=ScheduleList, summary="List the schedules")
def list_schedules(request: HttpRequest, query: Query[ListQuery]) -> dict[str, Any]:
    rows = [schedule_to_dict(row) for row in schedules.list_schedules(user=request.auth)]
    return cut_list(rows, query, key=lambda row: row["id"])


@router.post("", response={201: Schedule}, summary="Make a schedule")
def create_schedule(request: HttpRequest, new: NewSchedule) -> Status:
    dataset = find_the_dataset(request, new.dataset)
    row = schedules.create_schedule(user=request.auth, dataset=dataset, **new.dict(exclude={"dataset"}))
    return Status(201, schedule_to_dict(row))


@router.get("/{int:schedule_id}", response=Schedule, summary="Read a schedule")
def get_schedule(request: HttpRequest, schedule_id: int) -> dict[str, Any]:
    return schedule_to_dict(schedules.get_schedule(schedule_id, user=request.auth))


@router.patch("/{int:schedule_id}", response=Schedule, summary="Change a schedule")
def change_schedule(request: HttpRequest, schedule_id: int, change: ScheduleChange) -> dict[str, Any]:
    """Whoever changes it answers for its jobs from now on."""
    row = schedules.get_schedule(schedule_id, user=request.auth)
    values = {name: value for name, value in change.dict(exclude_unset=True).items() if value is not None}
    if "dataset" in values:
        values["dataset"] = find_the_dataset(request, values["dataset"])
    return schedule_to_dict(schedules.change_schedule(row, user=request.auth, **values))


@router.delete("/{int:schedule_id}", response={204: None}, summary="Delete a schedule")
def delete_schedule(request: HttpRequest, schedule_id: int) -> Status:
    """Its jobs stay."""
    schedules.delete_schedule(schedules.get_schedule(schedule_id, user=request.auth))
    return Status(204, None)


@router.post("/{int:schedule_id}/run", response=RunNow, summary="Look at a schedule's condition now")
def run_schedule(request: HttpRequest, schedule_id: int) -> dict[str, Any]:
    row = schedules.get_schedule(schedule_id, user=request.auth)
    job = schedules.run_schedule(row)
    shown = job_to_dict(get_job(job.pk, user=request.auth)) if job else None
    return {"job": shown, "outcome": row.last_outcome}


def schedule_to_dict(row: ScheduleRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in SAME}
    return {**values, "dataset": row.dataset_id, "next_run_at": schedules.next_run_at(row)}
