"""Jobs as people read them: why one failed and what to do, the pre-flight report, and what came out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.utils.safestring import SafeString, mark_safe

from chat import markdown
from finetuning.models import Evaluation, FineTuningJob, Lineage
from finetuning.pages.charts import Share, draw_shares
from finetuning.pages.job_words import ADVICE, FIELDS, METRICS, SOURCES, UNKNOWN_FAILURE, Metric
from models_hub.models import PRODUCTION, ModelVersion

MAX_MATRIX = 20
FIRST_SAMPLES, MAX_SAMPLES = 3, 12
SHADES = 8
PREFLIGHT = "preflight"
# A change of less than one in a hundred is nothing that a person would notice.
NEGLIGIBLE = 0.01


# --- failure ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """Empty when nothing failed. `changes` says of each hyperparameter of the suggestion what it was and would be."""

    title: str = ""
    advice: str = ""
    message: str = ""
    suggestion: Mapping[str, Any] = field(default_factory=dict)
    changes: Sequence[tuple[str, Any, Any]] = ()

    def __bool__(self) -> bool:
        return bool(self.title)


def show_failure(job: FineTuningJob) -> Failure:
    if not job.error_code:
        return Failure()
    code, suggestion = job.error_code, job.error_details.get("suggestion") or {}
    errors = job.error_details.get("errors") or []
    if code == PREFLIGHT and len(errors) == 1:  # the report's only error says more than that there is one
        code, suggestion = errors[0].get("code", code), errors[0].get("suggestion") or {}
    title, advice = ADVICE.get(code, ADVICE.get(job.error_code, UNKNOWN_FAILURE))
    used = {**_resolved(job), **job.hyperparameters}
    changes = [(_label(name), used.get(name), value) for name, value in suggestion.items()]
    return Failure(title, advice, job.error_message, suggestion, changes)


def _resolved(job: FineTuningJob) -> Mapping[str, Any]:
    return (job.preflight or {}).get("hyperparameters") or {}


def _label(name: str) -> str:
    return FIELDS[name].label if name in FIELDS else name


# --- pre-flight -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    name: str
    label: str
    value: Any
    is_chosen: bool


@dataclass(frozen=True)
class LengthBar:
    """Rows of up to so many tokens; places in a drawing of 100 by 100."""

    label: str
    count: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Report:
    """The stored dict, and beside it what templates cannot work out."""

    raw: Mapping[str, Any]
    lengths: Sequence[LengthBar]
    labels: Sequence[Share]
    refused: int
    refused_by_code: Sequence[tuple[str, int]]
    settings: Sequence[Setting]
    more_settings: Sequence[Setting]
    samples: Sequence[Mapping[str, Any]]
    more_samples: Sequence[Mapping[str, Any]]

    @property
    def can_run(self) -> bool:
        return not self.raw.get("errors")


def show_preflight(job: FineTuningJob) -> Report | None:
    raw = job.preflight
    if not raw:
        return None
    codes = raw.get("excluded_codes") or {}
    settings = _settings(job)
    samples = raw.get("samples") or ()
    return Report(
        raw=raw,
        lengths=draw_bars(raw.get("length_histogram") or {}),
        labels=draw_shares(raw.get("labels") or {}),
        refused=sum(codes.values()) or len(raw.get("excluded") or ()),
        refused_by_code=sorted(codes.items(), key=lambda item: -item[1]),
        settings=[setting for setting in settings if setting.name in FIELDS],
        more_settings=[setting for setting in settings if setting.name not in FIELDS],
        samples=samples[:FIRST_SAMPLES],
        more_samples=samples[FIRST_SAMPLES:MAX_SAMPLES],
    )


def _settings(job: FineTuningJob) -> list[Setting]:
    """Those that mean something for the method: what was chosen first, then in the order of the form."""
    order = list(FIELDS)
    resolved = _resolved(job)
    names = [name for name in resolved if name not in FIELDS or job.method in FIELDS[name].methods]
    names.sort(key=lambda name: (name not in job.hyperparameters, order.index(name) if name in FIELDS else len(order)))
    return [Setting(name, _label(name), resolved[name], name in job.hyperparameters) for name in names]


def draw_bars(histogram: Mapping[str, int]) -> list[LengthBar]:
    """From the rows by the upper edge of their bin, in tokens."""
    tallest = max(histogram.values(), default=0)
    if not tallest:
        return []
    step, below = 100 / len(histogram), 0
    bars = []
    for number, (edge, count) in enumerate(sorted((int(edge), count) for edge, count in histogram.items())):
        height = max(1.5, count / tallest * 100)  # a single row stays visible beside thousands
        bars.append(LengthBar(f"{below + 1:,} to {edge:,}", count, number * step, 100 - height, step * 0.96, height))
        below = edge
    return bars


# --- result -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """One measure before and after; `verdict` is better, worse, same, or empty when neither is."""

    label: str
    metric: Metric
    before: float | None
    after: float | None

    @property
    def is_share(self) -> bool:
        return self.metric.is_share

    @property
    def change(self) -> float | None:
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def verdict(self) -> str:
        change = self.change
        if change is None or not self.metric.better:
            return ""
        if abs(change) <= NEGLIGIBLE * abs(self.before or 0.0):
            return "same"
        return "better" if (change < 0) == (self.metric.better == "lower") else "worse"


@dataclass(frozen=True)
class MatrixCell:
    count: int
    shade: int
    is_right: bool


@dataclass(frozen=True)
class MatrixRow:
    label: str
    cells: Sequence[MatrixCell]


@dataclass(frozen=True)
class ClassRow:
    label: str
    precision: float
    recall: float
    f1: float
    support: int
    f1_before: float | None


@dataclass
class Result:
    version: ModelVersion
    aliases: list[str]
    lineage: Lineage | None
    card: SafeString
    evaluation: Evaluation | None
    measures: list[Compared] = field(default_factory=list)
    answers: list[Mapping[str, Any]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    matrix: list[MatrixRow] = field(default_factory=list)
    classes: list[ClassRow] = field(default_factory=list)

    @property
    def is_production(self) -> bool:
        return PRODUCTION in self.aliases

    @property
    def may_be_promoted(self) -> bool:
        """Whether to offer it; the gate itself is asked when somebody does."""
        version = self.version
        is_checked = version.evaluated_at is not None or not version.needs_evaluation
        return is_checked and version.retired_at is None and not self.is_production


def show_result(job: FineTuningJob) -> Result | None:
    version = job.result_version
    if version is None:
        return None
    lineage = Lineage.objects.filter(version=version).first()
    evaluation = Evaluation.objects.filter(version=version).order_by("-created_at", "-pk").first()
    card = mark_safe(markdown.render(lineage.card)) if lineage and lineage.card else SafeString()  # noqa: S308 - cleaned by nh3
    aliases = list(version.aliases.order_by("name").values_list("name", flat=True))
    result = Result(version, aliases, lineage, card, evaluation)
    if evaluation is not None and evaluation.status == Evaluation.Status.COMPLETE:
        result.measures = compare_measures(evaluation)
        result.answers = [{**answer, "source": SOURCES.get(answer.get("source"), "")} for answer in evaluation.answers]
        result.labels, result.matrix = draw_matrix(evaluation.after)
        result.classes = list_classes(evaluation.before, evaluation.after)
    return result


def compare_measures(evaluation: Evaluation) -> list[Compared]:
    rows = _compare(evaluation.before, evaluation.after, "")
    rows += _compare(evaluation.general_before, evaluation.general_after, "General texts: ")
    if evaluation.stop_rate_after is not None:
        ended = Metric("Answers that end by themselves", "higher", is_share=True)
        rows.append(Compared(ended.label, ended, evaluation.stop_rate_before, evaluation.stop_rate_after))
    return rows


def _compare(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str) -> list[Compared]:
    return [
        Compared(_titled(prefix, metric.label), metric, before.get(name), after.get(name))
        for name, metric in METRICS.items()
        if isinstance(after.get(name), int | float)
    ]


def _titled(prefix: str, label: str) -> str:
    return prefix + (label[0].lower() + label[1:] if prefix else label)


def draw_matrix(metrics: Mapping[str, Any]) -> tuple[list[str], list[MatrixRow]]:
    """Rows are what it is, columns what it was called; the shade is the share of the row, in steps."""
    confusion = metrics.get("confusion") or []
    labels = list(metrics.get("labels") or metrics.get("per_class") or ())
    if not confusion or len(labels) != len(confusion) or len(labels) > MAX_MATRIX:
        return [], []
    return labels, [
        MatrixRow(label, [_cell(count, sum(counts), row == column) for column, count in enumerate(counts)])
        for row, (label, counts) in enumerate(zip(labels, confusion, strict=True))
    ]


def _cell(count: int, total: int, is_right: bool) -> MatrixCell:
    return MatrixCell(count, round(count / total * SHADES) if total else 0, is_right)


def list_classes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[ClassRow]:
    earlier = before.get("per_class") or {}
    return [
        ClassRow(label, row["precision"], row["recall"], row["f1"], row["support"], earlier.get(label, {}).get("f1"))
        for label, row in (after.get("per_class") or {}).items()
    ]
