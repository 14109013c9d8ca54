"""`/api/models/<slug>/versions` and its aliases: which there are, and for curators what becomes of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.http import HttpRequest, StreamingHttpResponse
from ninja import Query, Router, Schema, Status
from pydantic import Field

from accounts.models import User
from config.api_lists import NEXT, ListQuery, cut_list
from config.api_schema import RequestSchema
from config.streaming import stream_file
from finetuning import versions
from finetuning.access import check_curator, is_curator
from finetuning.versions.files import export_name
from finetuning.versions.reports import VersionReport
from models_hub import selectors
from models_hub.models import AliasEvent, ModelVersion, RegisteredModel

router = Router()


class Lineage(Schema):
    """Where a version that was trained here comes from."""

    job_id: str | None
    dataset_id: int
    dataset: str
    dataset_version: int
    base: str = Field(description="The version it was trained from, as slug@number.")
    base_fingerprint: str
    method: str
    hyperparameters: dict[str, Any]
    template_hash: str
    packages: dict[str, str]
    withdrawn_at: datetime | None = Field(description="When somebody withdrew data that it has seen.")
    withdrawn_rows: int


class Evaluation(Schema):
    """The version beside its base; `answers` only for one version."""

    status: str
    before: dict[str, Any]
    after: dict[str, Any]
    general_before: dict[str, Any]
    general_after: dict[str, Any]
    stop_rate_before: float | None
    stop_rate_after: float | None
    warnings: list[Any]
    error_message: str
    created_at: datetime


class EvaluationWithAnswers(Evaluation):
    answers: list[dict[str, Any]]


class Ratings(Schema):
    """What people thought of the replies it wrote."""

    good: int
    bad: int
    corrections: int
    replies: int


class Version(Schema):
    number: int
    provider_model: str = Field(description="What the provider or the engine calls it.")
    source: str
    revision: str
    is_ready: bool
    not_ready_reason: str
    context_window: int | None
    aliases: list[str]
    created_at: datetime
    retired_at: datetime | None
    needs_evaluation: bool
    evaluated_at: datetime | None
    card: str = Field(description="The model card, Markdown; empty for what was not trained here.")
    lineage: Lineage | None = Field(description="For curators.")
    evaluation: Evaluation | None = Field(description="For curators: the latest.")
    ratings: Ratings | None = Field(description="For curators.")


class VersionWithAnswers(Version):
    evaluation: EvaluationWithAnswers | None = Field(description="For curators: the latest.")


class VersionList(Schema):
    items: list[Version]
    next_cursor: str | None = NEXT


class AliasMove(RequestSchema):
    version: int = Field(ge=1, le=2**31 - 1)
    reason: str = Field(min_length=1, max_length=500, examples=["Better at summaries in the evaluation."])


class RollBack(RequestSchema):
    reason: str = Field(min_length=1, max_length=500, examples=["It answers in the wrong language."])
    from_version: int | None = Field(None, ge=1, le=2**31 - 1, description="What you saw there; another by now: busy.")


class AliasMoved(Schema):
    model: str
    alias: str
    version: int
    previous_version: int | None
    reason: str


class Retired(Schema):
    number: int
    retired_at: datetime


# A slug may hold slashes: OPENAI_MODELS names models of other providers too.
@router.get("/{path:slug}/versions", response=VersionList, summary="List the versions of a model")
def list_versions(request: HttpRequest, slug: str, query: Query[ListQuery]) -> dict[str, object]:
    reports = versions.list_reports(selectors.get_model(slug, user=request.auth))
    page = cut_list(reports, query, key=lambda report: report.version.number)
    return page | {"items": [_version(report, is_curator(request.auth)) for report in page["items"]]}


@router.get("/{path:slug}/versions/{int:number}", response=VersionWithAnswers, summary="Read one version")
def get_version(request: HttpRequest, slug: str, number: int) -> dict[str, object]:
    report = versions.get_report(selectors.get_model(slug, user=request.auth), number)
    return _version(report, is_curator(request.auth))


@router.get("/{path:slug}/versions/{int:number}/export", summary="Download a version as a zip file")
def export_version(
    request: HttpRequest, slug: str, number: int, part: Literal["merged", "adapter"] = "merged"
) -> StreamingHttpResponse:
    """For curators. Weights, manifest and model card; `adapter` is what training added to its base."""
    version = _version_of(request.auth, slug, number)
    pieces = versions.export_version(version, part=part)
    return stream_file(pieces, name=f"{export_name(version, part)}.zip", content_type="application/zip")


@router.post("/{path:slug}/versions/{int:number}/retire", response=Retired, summary="Retire a version")
def retire_version(request: HttpRequest, slug: str, number: int) -> ModelVersion:
    """For curators. Nobody can ask it any more; what it wrote stays."""
    return versions.retire(_version_of(request.auth, slug, number), actor=request.auth)


@router.delete("/{path:slug}/versions/{int:number}", response={204: None}, summary="Delete a version")
def delete_version(request: HttpRequest, slug: str, number: int) -> Status[None]:
    """For curators, and only while nothing uses or names it: `busy` says what does."""
    versions.delete_version(_version_of(request.auth, slug, number))
    return Status(204, None)


@router.put("/{path:slug}/aliases/{str:alias}", response=AliasMoved, summary="Point an alias at a version")
def move_alias(request: HttpRequest, slug: str, alias: str, move: AliasMove) -> dict[str, object]:
    """For curators. A version that was trained here needs an evaluation first. The move is kept with its reason."""
    version = _version_of(request.auth, slug, move.version)
    return _moved(slug, versions.promote(version, actor=request.auth, reason=move.reason, alias=alias))


@router.post("/{path:slug}/aliases/{str:alias}/rollback", response=AliasMoved, summary="Roll an alias back")
def roll_back(request: HttpRequest, slug: str, alias: str, back: RollBack) -> dict[str, object]:
    """For curators. To the version it pointed at before; once more goes one step further back."""
    model = _model_of(request.auth, slug)
    event = versions.roll_back(model, actor=request.auth, reason=back.reason, alias=alias, current=back.from_version)
    return _moved(slug, event)


def _model_of(user: User, slug: str) -> RegisteredModel:
    """One that this person may use, and change. Raises UnknownModelError or ForbiddenError."""
    model = selectors.get_model(slug, user=user)
    check_curator(user)
    return model


def _version_of(user: User, slug: str, number: int) -> ModelVersion:
    return versions.get_version(_model_of(user, slug), number)


def _moved(slug: str, event: AliasEvent) -> dict[str, object]:
    return {
        "model": slug,
        "alias": event.alias,
        "version": event.to_number,
        "previous_version": event.from_number,
        "reason": event.reason,
    }


def _version(report: VersionReport, is_curator: bool) -> dict[str, object]:
    version = report.version
    names = ("number", "provider_model", "source", "revision", "is_ready", "not_ready_reason", "created_at")
    names += ("retired_at", "needs_evaluation", "evaluated_at")
    return {
        **{name: getattr(version, name) for name in names},
        "context_window": version.context_window or version.model.context_window,
        "aliases": report.aliases,
        "card": report.lineage.card if report.lineage else "",
        "lineage": _lineage(report) if is_curator else None,
        "evaluation": report.evaluation if is_curator else None,
        "ratings": report.ratings if is_curator else None,
    }


def _lineage(report: VersionReport) -> dict[str, object] | None:
    lineage = report.lineage
    if lineage is None:
        return None
    names = ("base_fingerprint", "method", "hyperparameters", "template_hash", "packages")
    return {
        **{name: getattr(lineage, name) for name in (*names, "withdrawn_at", "withdrawn_rows")},
        "job_id": lineage.job_id and str(lineage.job_id),
        "dataset_id": lineage.dataset_version.dataset_id,
        "dataset": lineage.dataset_version.dataset.name,
        "dataset_version": lineage.dataset_version.number,
        "base": str(lineage.base_version),
    }
