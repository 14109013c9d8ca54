"""The form of a schedule: when, in words that make the cron line; what, as for a job."""

from __future__ import annotations

import re
from typing import Any

from django import forms

from finetuning.models import Schedule
from finetuning.pages.job_forms import HYPERPARAMETER, RecipeForm, printed

DAILY, WEEKLY, MONTHLY, CRON = "daily", "weekly", "monthly", "cron"
WEEKDAYS = (
    ("mon", "Monday"),
    ("tue", "Tuesday"),
    ("wed", "Wednesday"),
    ("thu", "Thursday"),
    ("fri", "Friday"),
    ("sat", "Saturday"),
    ("sun", "Sunday"),
)
# A month has no day 29 for certain.
DAYS = tuple((str(day), str(day)) for day in range(1, 29))
LINE = re.compile(r"(\d{1,2}) (\d{1,2}) (\*|\d{1,2}) \* (\*|mon|tue|wed|thu|fri|sat|sun)")


class ScheduleForm(RecipeForm):
    how_often = forms.ChoiceField(
        choices=[(DAILY, "day"), (WEEKLY, "week"), (MONTHLY, "month"), (CRON, "by a cron line")]
    )
    weekday = forms.ChoiceField(choices=WEEKDAYS, required=False)
    day = forms.ChoiceField(choices=DAYS, required=False)
    at = forms.TimeField(required=False, input_formats=["%H:%M", "%H:%M:%S"])
    cron = forms.CharField(max_length=100, required=False)
    min_new_examples = forms.IntegerField(min_value=0, max_value=10_000_000)

    takes_versions = False
    weekdays, days = WEEKDAYS, DAYS

    def clean_name(self) -> str:
        if not self.cleaned_data["name"].strip():
            raise forms.ValidationError("Give the schedule a name.")
        return self.cleaned_data["name"]

    def clean(self) -> dict[str, Any]:
        values = super().clean()
        how_often = values.get("how_often")
        if how_often == CRON and not values.get("cron"):
            self.add_error("cron", "Write a cron line, or choose how often.")
        elif how_often != CRON and values.get("at") is None and "at" not in self.errors:
            self.add_error("at", "Say at what time.")
        return values

    def arguments(self) -> dict[str, Any]:
        """All of `create_schedule` but the person."""
        values = self.cleaned_data
        return {
            **self.recipe(),
            "dataset": self.dataset,
            "cron": self._cron(),
            "time_zone": self.zone().key,
            "min_new_examples": values["min_new_examples"],
        }

    def _cron(self) -> str:
        values = self.cleaned_data
        if values["how_often"] == CRON:
            return values["cron"]
        day = values["day"] or "1" if values["how_often"] == MONTHLY else "*"
        weekday = values["weekday"] or "sun" if values["how_often"] == WEEKLY else "*"
        return f"{values['at'].minute} {values['at'].hour} {day} * {weekday}"


def initial_of_schedule(schedule: Schedule) -> dict[str, Any]:
    return {
        "method": schedule.method,
        "base": schedule.base,
        "data_source": f"dataset-{schedule.dataset_id}",
        "target": schedule.target,
        "name": schedule.name,
        "system_prompt": schedule.system_prompt,
        "sample_prompts": "\n".join(" ".join(prompt.split()) for prompt in schedule.sample_prompts),
        "min_new_examples": schedule.min_new_examples,
        "time_zone": schedule.time_zone,
        **_read_cron(schedule.cron),
        **{HYPERPARAMETER + name: printed(value) for name, value in schedule.hyperparameters.items()},
    }


def _read_cron(line: str) -> dict[str, Any]:
    """The fields that made it; as it is when they cannot have."""
    found = LINE.fullmatch(line)
    if found is None or (found[3] != "*" and found[4] != "*"):
        return {"how_often": CRON, "cron": line}
    how_often = MONTHLY if found[3] != "*" else WEEKLY if found[4] != "*" else DAILY
    return {
        "how_often": how_often,
        "at": f"{int(found[2]):02}:{int(found[1]):02}",
        "day": found[3] if how_often == MONTHLY else "1",
        "weekday": found[4] if how_often == WEEKLY else "sun",
        "cron": line,
    }


def describe_cron(line: str) -> str:
    """Every Sunday at 02:00; the line itself when it says something else."""
    fields = _read_cron(line)
    if fields["how_often"] == CRON:
        return f"At {line}"
    if fields["how_often"] == MONTHLY:
        return f"On day {fields['day']} of each month at {fields['at']}"
    day = dict(WEEKDAYS)[fields["weekday"]] if fields["how_often"] == WEEKLY else "day"
    return f"Every {day} at {fields['at']}"
