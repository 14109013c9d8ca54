"""What is known of a model's versions: where each comes from, how it was measured, what people thought of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

from django.db.models import Count, Q, QuerySet

from chat.errors import NotFoundError
from chat.models import Correction, Feedback, Message
from finetuning.models import Evaluation, Lineage
from finetuning.models.jobs import METHODS
from models_hub.models import PRODUCTION, AliasEvent, ModelVersion, RegisteredModel

# What each measure is called, and whether more of it is better.
MEASURES = {
    "eval_loss": ("Loss", False),
    "loss": ("Loss", False),
    "perplexity": ("Perplexity", False),
    "accuracy": ("Accuracy", True),
    "macro_f1": ("Macro-F1", True),
    "majority": ("Always the commonest label", None),
    "margin": ("Margin", True),
    "reward_accuracy": ("Prefers the better answer", True),
    "sentence_perplexity": ("Perplexity of plain sentences", False),
}
# Where a question that both were asked comes from.
SOURCES = {
    "fixed": "asked of every version",
    "sample": "the job's sample",
    "held out": "held-out row",
    "conversation": "from a conversation",
}
SHARES = {"accuracy", "macro_f1", "majority", "reward_accuracy", "stop_rate"}
METHOD_NAMES = dict(METHODS)
Figure = tuple[str, str]  # its name for people, and its key


@dataclass(frozen=True)
class Ratings:
    """Of the replies that this version wrote."""

    good: int = 0
    bad: int = 0
    corrections: int = 0
    replies: int = 0

    @property
    def approval(self) -> float | None:
        """The share of thumbs that point up."""
        rated = self.good + self.bad
        return self.good / rated if rated else None


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure of two models side by side; None where one was not measured. `is_better`: the right one is."""

    name: str
    before: float | None
    after: float | None
    is_share: bool = False
    more_is_better: bool | None = None

    @property
    def before_text(self) -> str:
        return self._text(self.before)

    @property
    def after_text(self) -> str:
        return self._text(self.after)

    def _text(self, value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:.1%}" if self.is_share else f"{value:,.3f}"

    @property
    def is_better(self) -> bool | None:
        if self.more_is_better is None or self.before is None or self.after is None or self.before == self.after:
            return None
        return (self.after > self.before) is self.more_is_better


@dataclass(frozen=True, kw_only=True)
class VersionReport:
    version: ModelVersion
    aliases: list[str]
    lineage: Lineage | None = None
    evaluation: Evaluation | None = None
    ratings: Ratings = field(default_factory=Ratings)

    @property
    def method_name(self) -> str:
        return METHOD_NAMES.get(self.lineage.method, self.lineage.method) if self.lineage else ""

    @property
    def measures(self) -> list[Measure]:
        """Base and version side by side, on held-out rows, then on the general set."""
        return list(_measures_of(self.evaluation)) if self.evaluation else []

    def was_made_from(self, base: ModelVersion) -> bool:
        """And was measured beside it: its evaluation then knows both, asked the same on the same rows."""
        is_measured = self.evaluation is not None and self.evaluation.status == Evaluation.Status.COMPLETE
        return is_measured and self.lineage is not None and self.lineage.base_version_id == base.pk

    @property
    def labels(self) -> list[LabelRow]:
        return _label_rows(self.evaluation.after) if self.evaluation else []


@dataclass(frozen=True)
class LabelRow:
    """One label of a classifier, and what its rows were called."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    called: list[int]


@dataclass(frozen=True)
class AnswerRow:
    """One prompt and who answered what; empty where that version was not asked."""

    prompt: str
    source: str
    base: str
    left: str
    right: str
    left_has_stopped: bool | None = None
    right_has_stopped: bool | None = None


@dataclass(frozen=True)
class Comparison:
    left: VersionReport
    right: VersionReport
    measures: list[Measure]
    answers: list[AnswerRow]
    is_one_evaluation: bool = False

    @property
    def is_same_data(self) -> bool:
        """Whether both were held against the same rows; a version without lineage has figures of none."""
        if self.is_one_evaluation:
            return True
        sides = [side.lineage.dataset_version_id for side in (self.left, self.right) if side.lineage]
        return len(set(sides)) < 2


def list_reports(model: RegisteredModel) -> list[VersionReport]:
    """Newest first, in a fixed number of queries. Evaluations come without their answers."""
    versions = model.versions.select_related("model").prefetch_related("aliases").order_by("-number")
    return _reports(list(versions), Evaluation.objects.defer("answers"))


def get_report(model: RegisteredModel, number: int) -> VersionReport:
    """Everything about one version. Raises NotFoundError."""
    [report] = _reports([get_version(model, number)], Evaluation.objects.all())
    return report


def get_version(model: RegisteredModel, number: int) -> ModelVersion:
    """Raises NotFoundError."""
    found = model.versions.select_related("model__connection").filter(number=number).first()
    if found is None:
        raise NotFoundError(f"{model.slug} has no version {number}.")
    return found


def list_events(model: RegisteredModel) -> QuerySet[AliasEvent]:
    """Who moved which alias, newest first."""
    return model.alias_events.select_related("actor")


def compare(version: ModelVersion, other: ModelVersion | None = None) -> Comparison:
    """`version` on the right beside `other`, or beside what is in production, or else its base."""
    other = other or _usual_other(version)
    left, right = _reports([other, version], Evaluation.objects.all())
    if right.was_made_from(other):
        return Comparison(left, right, right.measures, list_answers(right.evaluation), is_one_evaluation=True)
    if left.was_made_from(version):
        measures = [replace(measure, before=measure.after, after=measure.before) for measure in left.measures]
        return Comparison(left, right, measures, _turned(list_answers(left.evaluation)), is_one_evaluation=True)
    measures = list(_paired(_figures(left.evaluation), _figures(right.evaluation)))
    return Comparison(left, right, measures, _answers_of(left.evaluation, right.evaluation))


def _usual_other(version: ModelVersion) -> ModelVersion:
    """Raises NotFoundError when there is nothing to compare with."""
    production = version.model.aliases.select_related("version__model").filter(name=PRODUCTION).first()
    if production and production.version_id != version.pk:
        return production.version
    lineage = Lineage.objects.select_related("base_version__model").filter(version=version).first()
    if lineage is None:
        raise NotFoundError(f"There is nothing to compare {version} with.")
    return lineage.base_version


def _reports(versions: list[ModelVersion], evaluations: QuerySet[Evaluation]) -> list[VersionReport]:
    ids = [version.pk for version in versions]
    related = ("job", "dataset_version__dataset", "base_version__model")
    lineages = {row.version_id: row for row in Lineage.objects.select_related(*related).filter(version__in=ids)}
    # The latest wins; but one that failed or still runs does not hide what an earlier one found.
    in_order = sorted(evaluations.filter(version__in=ids), key=_by_worth)
    latest = {evaluation.version_id: evaluation for evaluation in in_order}
    ratings = _count_ratings(ids)
    return [
        VersionReport(
            version=version,
            aliases=sorted(alias.name for alias in version.aliases.all()),
            lineage=lineages.get(version.pk),
            evaluation=latest.get(version.pk),
            ratings=ratings.get(version.pk, Ratings()),
        )
        for version in versions
    ]


def _by_worth(evaluation: Evaluation) -> tuple[bool, Any, int]:
    return evaluation.status == Evaluation.Status.COMPLETE, evaluation.created_at, evaluation.pk


def _count_ratings(ids: list[int]) -> dict[int, Ratings]:
    replies = _by_version(Message.objects.filter(version__in=ids), "version", replies=Count("id"))
    thumbs = _by_version(
        Feedback.objects.filter(message__version__in=ids),
        "message__version",
        good=Count("id", filter=Q(rating=Feedback.Rating.GOOD)),
        bad=Count("id", filter=Q(rating=Feedback.Rating.BAD)),
    )
    corrected = _by_version(
        Correction.objects.filter(message__version__in=ids), "message__version", corrections=Count("id")
    )
    return {pk: Ratings(**replies.get(pk, {}), **thumbs.get(pk, {}), **corrected.get(pk, {})) for pk in ids}


def _by_version(rows: QuerySet[Any], name: str, **counts: Count) -> dict[int, dict[str, int]]:
    found = rows.order_by().values(name).annotate(**counts).values_list(name, *counts)
    return {pk: dict(zip(counts, values, strict=True)) for pk, *values in found}


def _measures_of(evaluation: Evaluation) -> Iterator[Measure]:
    sides = (
        ("", evaluation.before, evaluation.after),
        ("General set: ", evaluation.general_before, evaluation.general_after),
        ("", {"stop_rate": evaluation.stop_rate_before}, {"stop_rate": evaluation.stop_rate_after}),
    )
    for beginning, before, after in sides:
        yield from _paired(_scalars(before, beginning), _scalars(after, beginning))


def _paired(left: Mapping[Figure, float], right: Mapping[Figure, float]) -> Iterator[Measure]:
    for figure in dict.fromkeys([*right, *left]):
        yield Measure(
            name=figure[0],
            before=left.get(figure),
            after=right.get(figure),
            is_share=figure[1] in SHARES,
            more_is_better=_direction(figure[1]),
        )


def _figures(evaluation: Evaluation | None) -> dict[Figure, float]:
    """What was measured of the version itself."""
    if evaluation is None:
        return {}
    figures = _scalars(evaluation.after) | _scalars(evaluation.general_after, "General set: ")
    return figures | _scalars({"stop_rate": evaluation.stop_rate_after})


def _scalars(metrics: Mapping[str, Any], beginning: str = "") -> dict[Figure, float]:
    found = {}
    for key, value in metrics.items():
        if isinstance(value, float):  # whole numbers count rows and tokens
            found[beginning + _name_of(key), key] = float(value)
    return found


def _name_of(key: str) -> str:
    if key == "stop_rate":
        return "Answers that end by themselves"
    return MEASURES[key][0] if key in MEASURES else key.replace("_", " ").capitalize()


def _direction(key: str) -> bool | None:
    return True if key == "stop_rate" else MEASURES.get(key, ("", None))[1]


def _label_rows(metrics: Mapping[str, Any]) -> list[LabelRow]:
    """The table per label with the confusion matrix at its right; empty for other kinds of models.

    The matrix is in the order of `labels`: of a JSON object PostgreSQL keeps no order.
    """
    per_class, confusion = metrics.get("per_class") or {}, metrics.get("confusion") or []
    named = [(name, per_class[name]) for name in metrics.get("labels") or per_class if name in per_class]
    return [
        LabelRow(name, row["precision"], row["recall"], row["f1"], row["support"], called or [])
        for (name, row), called in zip_longest(named, confusion[: len(named)])
    ]


def _answers_of(left: Evaluation | None, right: Evaluation | None) -> list[AnswerRow]:
    by_prompt = [{prompt_text(row["prompt"]): row for row in _answers(evaluation)} for evaluation in (left, right)]
    rows = []
    for prompt in dict.fromkeys([*by_prompt[1], *by_prompt[0]]):
        at_left, at_right = by_prompt[0].get(prompt, {}), by_prompt[1].get(prompt, {})
        either = at_right or at_left
        rows.append(
            AnswerRow(
                prompt=prompt,
                source=SOURCES.get(either.get("source"), ""),
                base=either.get("base", ""),
                left=at_left.get("tuned", ""),
                right=at_right.get("tuned", ""),
                left_has_stopped=at_left.get("tuned_stopped"),
                right_has_stopped=at_right.get("tuned_stopped"),
            )
        )
    return rows


def list_answers(evaluation: Evaluation | None) -> list[AnswerRow]:
    """What the base (left) and the version (right) answered."""
    return [
        AnswerRow(
            prompt=prompt_text(row["prompt"]),
            source=SOURCES.get(row.get("source"), ""),
            base=row.get("base", ""),
            left=row.get("base", ""),
            right=row.get("tuned", ""),
            left_has_stopped=row.get("base_stopped"),
            right_has_stopped=row.get("tuned_stopped"),
        )
        for row in _answers(evaluation)
    ]


def _turned(answers: list[AnswerRow]) -> list[AnswerRow]:
    return [
        replace(
            row,
            left=row.right,
            right=row.left,
            left_has_stopped=row.right_has_stopped,
            right_has_stopped=row.left_has_stopped,
        )
        for row in answers
    ]


def _answers(evaluation: Evaluation | None) -> Iterable[dict[str, Any]]:
    return evaluation.answers if evaluation else []


def prompt_text(prompt: str | list[dict[str, str]]) -> str:
    """What was asked, in one text: the turns below each other."""
    return prompt if isinstance(prompt, str) else "\n\n".join(turn["content"] for turn in prompt)
