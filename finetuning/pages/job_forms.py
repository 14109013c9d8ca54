"""The form of a new job, and of a schedule, which repeats one. What depends on the method follows the method chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django import forms
from django.conf import settings
from django.db.models import Exists, OuterRef, Prefetch
from django.utils import timezone

from accounts.models import User
from finetuning.jobs import suggest_target, trainable_bases
from finetuning.jobs.bases import METHOD_OF_KIND
from finetuning.models import Dataset, DatasetVersion, Example, FineTuningJob
from finetuning.models.jobs import METHODS as METHOD_CHOICES
from finetuning.pages.job_words import CAUSAL, FIELDS, METHODS, REASONS, Field
from finetuning.templatetags.job_figures import figure
from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.specs import KINDS

HYPERPARAMETER = "hp-"
MAX_DATASETS, MAX_VERSIONS = 100, 10
NOW, LATER, CHECK = "now", "later", "check"


@dataclass(frozen=True)
class Choice:
    """A dataset with its frozen versions; `is_empty` when no row of it is approved."""

    dataset: Dataset
    versions: list[DatasetVersion]
    is_empty: bool

    @property
    def value(self) -> str:
        return f"dataset-{self.dataset.pk}"

    def frozen(self) -> list[tuple[str, DatasetVersion]]:
        return [(f"version-{version.pk}", version) for version in self.versions]


class RecipeForm(forms.Form):
    """What is trained, from what, how. `method` decides which bases, datasets and hyperparameters there are."""

    method = forms.ChoiceField(choices=METHOD_CHOICES)
    base = forms.CharField(error_messages={"required": "Choose the model to train."})
    data_source = forms.CharField(error_messages={"required": "Choose what it learns from."})
    name = forms.CharField(max_length=200, required=False)
    target = forms.CharField(max_length=200, required=False)
    system_prompt = forms.CharField(max_length=20_000, required=False, strip=False)
    sample_prompts = forms.CharField(max_length=40_000, required=False)
    time_zone = forms.CharField(max_length=63, required=False)
    request_key = forms.CharField(max_length=64)

    takes_versions = True

    def __init__(self, data: Mapping[str, Any] | None = None, *, user: User, initial: dict[str, Any]) -> None:
        super().__init__(data, initial={"request_key": str(uuid4()), "method": Method.LORA_SFT.value, **initial})
        self.user = user
        self.chosen_method = self._method()
        self.bases = trainable_bases(self.chosen_method, user=user)
        self.choices = list_choices(self.chosen_method)
        self.dataset, self.version = self._find_data(self.value("data_source"))
        self.defaults = self._defaults()

    # --- what the template draws ---

    def value(self, name: str) -> str:
        values = self.data if self.is_bound else self.initial
        return str(values.get(name) or "")

    @property
    def method_words(self) -> Any:
        return METHODS[self.chosen_method]

    @property
    def methods(self) -> list[tuple[str, Any]]:
        return [(method.value, words) for method, words in METHODS.items()]

    @property
    def suggested_target(self) -> str:
        base = self.value("base") if self.value("base") in self.bases else next(iter(self.bases), "")
        return suggest_target(base, self.dataset, method=self.chosen_method) if base and self.dataset else ""

    @property
    def hyperparameters(self) -> list[dict[str, Any]]:
        """Name, field, what was typed, the default, and why it is that."""
        return [
            {
                "name": HYPERPARAMETER + name,
                "field": field,
                "value": self.value(HYPERPARAMETER + name),
                "default": _default(getattr(self.defaults, name)),
                "reason": REASONS.get(name, {}).get(self.chosen_method, ""),
                "errors": self.errors.get(HYPERPARAMETER + name, []) if self.is_bound else [],
            }
            for name, field in FIELDS.items()
            if self.chosen_method in field.methods
        ]

    @property
    def has_chosen_hyperparameters(self) -> bool:
        return any(item["value"] for item in self.hyperparameters)

    @property
    def has_hyperparameter_errors(self) -> bool:
        return any(item["errors"] for item in self.hyperparameters)

    @property
    def is_chat(self) -> bool:
        return self.chosen_method in CAUSAL

    # --- what was chosen ---

    def clean_base(self) -> str:
        base = self.cleaned_data["base"]
        if base not in self.bases:
            raise forms.ValidationError("This model cannot be trained by this method. Choose one of the list.")
        return base

    def clean_data_source(self) -> str:
        if self.dataset is None:
            raise forms.ValidationError("This dataset does not fit the method. Choose one of the list.")
        if (
            self.takes_versions
            and self.version is None
            and any(item.is_empty for item in self.choices if item.dataset == self.dataset)
        ):
            raise forms.ValidationError("No row of this dataset is approved yet. Review it first.")
        return self.cleaned_data["data_source"]

    def clean_sample_prompts(self) -> list[str]:
        return [line.strip() for line in self.cleaned_data["sample_prompts"].splitlines() if line.strip()]

    def clean(self) -> dict[str, Any]:
        chosen = {}
        for name, field in FIELDS.items():
            text = self.value(HYPERPARAMETER + name).strip()
            if not text or self.chosen_method not in field.methods:
                continue
            try:
                chosen[name] = _parse(text, field)
                Hyperparameters.for_method(self.chosen_method, rows=1, **{name: chosen[name]})
            except ValueError as error:
                self._errors.setdefault(HYPERPARAMETER + name, self.error_class()).append(str(error))
        return {**self.cleaned_data, "hyperparameters": chosen}

    def recipe(self) -> dict[str, Any]:
        """As `create_job` takes it, but for the data."""
        values = self.cleaned_data
        same = ("method", "base", "target", "name", "system_prompt", "sample_prompts", "hyperparameters")
        return {name: values[name] for name in same}

    def zone(self) -> ZoneInfo:
        try:
            return ZoneInfo(self.value("time_zone") or settings.TIME_ZONE)
        except (ZoneInfoNotFoundError, ValueError):
            return ZoneInfo(settings.TIME_ZONE)

    # --- helpers ---

    def _method(self) -> Method:
        try:
            return Method(self.value("method"))
        except ValueError:
            return Method.LORA_SFT

    def _find_data(self, value: str) -> tuple[Dataset | None, DatasetVersion | None]:
        for choice in self.choices:
            if value == choice.value:
                return choice.dataset, None
            for name, version in choice.frozen():
                if self.takes_versions and value == name:
                    return choice.dataset, version
        return None, None

    def _defaults(self) -> Hyperparameters:
        version = self.version
        if version is None and self.dataset is not None:
            version = next(
                (item.versions[0] for item in self.choices if item.dataset == self.dataset and item.versions), None
            )
        return Hyperparameters.for_method(self.chosen_method, rows=version.counts.get("train", 0) if version else 0)


class JobForm(RecipeForm):
    start = forms.ChoiceField(choices=[(NOW, "Now"), (LATER, "At a time"), (CHECK, "Check first")])
    run_at = forms.CharField(max_length=40, required=False)

    def clean(self) -> dict[str, Any]:
        values = super().clean()
        values["run_at"] = self._run_at() if values.get("start") == LATER else None
        return values

    def _run_at(self) -> datetime | None:
        try:
            moment = datetime.fromisoformat(self.value("run_at"))
        except ValueError:
            self.add_error("run_at", "Say when it should start.")
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=self.zone())
        if moment <= timezone.now():
            self.add_error("run_at", "This moment has passed.")
        return moment

    def arguments(self) -> dict[str, Any]:
        """All of `create_job`."""
        values = self.cleaned_data
        source = {"dataset_version": self.version} if self.version else {"dataset": self.dataset}
        how = {"run_at": values["run_at"], "is_held": values["start"] == CHECK, "request_key": values["request_key"]}
        return {**self.recipe(), **source, **how}


def initial_of(job: FineTuningJob) -> dict[str, Any]:
    """The fields of a job, for another one like it."""
    return {
        "method": job.method,
        "base": job.base,
        "data_source": f"version-{job.dataset_version_id}",
        "target": job.target,
        "name": job.name,
        "system_prompt": job.system_prompt,
        "sample_prompts": "\n".join(" ".join(prompt.split()) for prompt in job.sample_prompts),
        **{HYPERPARAMETER + name: printed(value) for name, value in job.hyperparameters.items()},
    }


def list_choices(method: Method) -> list[Choice]:
    """The datasets this method can learn from, with their newest versions; two queries."""
    versions = DatasetVersion.objects.exclude(status=DatasetVersion.Status.FAILED).order_by("-number")
    approved = Example.objects.filter(dataset=OuterRef("pk"), status=Example.Status.APPROVED)
    datasets = Dataset.objects.filter(deleted_at=None, kind__in=KINDS[method]).annotate(has_rows=Exists(approved))
    found = datasets.order_by("-updated_at").prefetch_related(Prefetch("versions", versions))[:MAX_DATASETS]
    return [
        Choice(dataset, list(dataset.versions.all())[:MAX_VERSIONS], is_empty=not dataset.has_rows) for dataset in found
    ]


def method_for(data_source: str) -> dict[str, str]:
    """The `method` that learns from such a frozen version; nothing where it is none."""
    number = data_source.removeprefix("version-")
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        return {}
    kind = DatasetVersion.objects.filter(pk=int(number)).values_list("kind", flat=True).first()
    return {"method": METHOD_OF_KIND[Dataset.Kind(kind)].value} if kind else {}


def _parse(text: str, field: Field) -> Any:
    """Raises ValueError with a sentence."""
    if field.kind == "choice":
        if text not in field.choices:
            raise ValueError(f"Choose one of {', '.join(field.choices)}.")
        return {"true": True, "false": False}.get(text, text)
    try:
        return int(text) if field.kind == "whole" else float(text)
    except ValueError:
        raise ValueError(
            "This must be a whole number." if field.kind == "whole" else "This must be a number."
        ) from None


def printed(value: Any) -> str:
    """As it can be typed, and read again without loss."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _default(value: Any) -> str:
    return printed(value) if value is None or isinstance(value, bool) else figure(value)
