"""The admin's pages about datasets, jobs and what came of them. Rows are made elsewhere; actions call the services."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display

from accounts.admin import OnlyAdmins
from finetuning import datasets, jobs
from finetuning.admin_actions import VersionActions, lead_to, run_on_each
from finetuning.jobs.bases import METHOD_OF_KIND
from finetuning.models import (
    Dataset,
    DatasetImport,
    DatasetVersion,
    Evaluation,
    Example,
    FineTuningJob,
    ImportProblem,
    JobEvent,
    Lineage,
    Schedule,
)
from finetuning.schedules import change_schedule
from models_hub.admin import ModelVersionAdmin, ReadOnly
from models_hub.models import ModelVersion

JOB_LABELS = {
    "Succeeded": "success",
    "Failed": "danger",
    "Cancelled": "warning",
    "Being cancelled": "warning",
    "Running": "info",
}


def link(name: str, url: str) -> str:
    return format_html('<a class="text-primary-600 dark:text-primary-500" href="{}">{}</a>', url, name)


class VersionInline(ReadOnly, TabularInline):
    model = DatasetVersion
    extra = 0
    fields = readonly_fields = ("number", "status", "rows", "counts", "content_hash", "created_at")
    show_change_link = True


class ImportInline(ReadOnly, TabularInline):
    model = DatasetImport
    extra = 0
    fields = readonly_fields = ("file_name", "status", "rows_added", "rows_refused", "duplicates", "created_at")
    show_change_link = True


@admin.register(Dataset)
class DatasetAdmin(ReadOnly, OnlyAdmins, ModelAdmin):
    list_display = ("name", "kind", "approved", "pending", "versions", "updated_at", "page")
    list_filter = ("kind", ("deleted_at", admin.EmptyFieldListFilter))
    search_fields = ("name",)
    fields = ("name", "kind", "description", "created_by", "created_at", "updated_at", "deleted_at", "page")
    readonly_fields = fields
    inlines = (VersionInline, ImportInline)
    actions = ("validate", "freeze")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Dataset]:
        by_status = {
            f"total_{status}": Count("examples", filter=Q(examples__status=status), distinct=True)
            for status in (Example.Status.APPROVED, Example.Status.PENDING)
        }
        return super().get_queryset(request).annotate(total_versions=Count("versions", distinct=True), **by_status)

    @display(description="approved", ordering="total_approved")
    def approved(self, dataset: Dataset) -> int:
        return dataset.total_approved

    @display(description="to review", ordering="total_pending")
    def pending(self, dataset: Dataset) -> int:
        return dataset.total_pending

    @display(description="versions", ordering="total_versions")
    def versions(self, dataset: Dataset) -> int:
        return dataset.total_versions

    @display(description="page")
    def page(self, dataset: Dataset) -> str:
        return link("Open", f"/datasets/{dataset.pk}/")

    @admin.action(description="Validate", permissions=["view"])
    def validate(self, request: HttpRequest, rows: QuerySet[Dataset]) -> None:
        """Of each what its page warns of. Whether there are enough rows depends on the splits: freezing says it."""
        for dataset in rows:
            found = datasets.describe_dataset(dataset)
            approved, pending = (found["counts"][status] for status in ("approved", "pending"))
            counted = f"{approved} rows approved, {pending} to review, {found['with_findings']} with personal data."
            is_good = approved and not pending and not found["with_findings"] and not found["warnings"]
            tell = messages.success if is_good else messages.warning
            tell(request, " ".join([f"{dataset}: {counted}", *found["warnings"]]))

    @admin.action(description="Freeze a version", permissions=["view"])
    def freeze(self, request: HttpRequest, rows: QuerySet[Dataset]) -> None:
        run_on_each(request, rows, lambda dataset: datasets.freeze(dataset, user=request.user), "Versions being frozen")


class ProblemInline(ReadOnly, TabularInline):
    model = ImportProblem
    extra = 0
    per_page = 50
    fields = readonly_fields = ("line", "severity", "code", "message")


@admin.register(DatasetImport)
class DatasetImportAdmin(ReadOnly, OnlyAdmins, ModelAdmin):
    list_display = ("__str__", "dataset", "state", "rows_added", "rows_refused", "duplicates", "created_at")
    list_filter = ("status", "source")
    list_select_related = ("dataset",)
    search_fields = ("file_name", "dataset__name")
    exclude = ("owner_token", "heartbeat_at", "path")
    inlines = (ProblemInline,)
    actions = ("cancel",)

    @display(description="status", label={"Read": "success", "Failed": "danger", "Reading": "info"})
    def state(self, row: DatasetImport) -> str:
        return row.get_status_display()

    @admin.action(description="Cancel", permissions=["view"])
    def cancel(self, request: HttpRequest, rows: QuerySet[DatasetImport]) -> None:
        run_on_each(request, rows, datasets.cancel_import, "Cancelled")


@admin.register(Example)
class ExampleAdmin(ReadOnly, OnlyAdmins, ModelAdmin):
    """Without the texts in the list; a row's own page shows what it holds, for it is what a model will learn."""

    list_display = ("id", "dataset", "state", "origin", "label", "length", "found", "reviewed_by", "reviewed_at")
    list_filter = ("status", "origin", "dataset")
    list_select_related = ("dataset", "reviewed_by")
    search_fields = ("=id", "label", "dataset__name")
    show_full_result_count = False
    actions = ("approve", "reject", "mask")

    @display(description="status", label={"Approved": "success", "Rejected": "danger", "To review": "warning"})
    def state(self, example: Example) -> str:
        return example.get_status_display()

    @display(description="personal data")
    def found(self, example: Example) -> str:
        return ", ".join(f"{kind} {count}" for kind, count in example.findings.items())

    @admin.action(description="Approve", permissions=["view"])
    def approve(self, request: HttpRequest, rows: QuerySet[Example]) -> None:
        datasets.approve(rows, user=request.user)

    @admin.action(description="Reject", permissions=["view"])
    def reject(self, request: HttpRequest, rows: QuerySet[Example]) -> None:
        datasets.reject(rows, user=request.user)

    @admin.action(description="Mask personal data and secrets", permissions=["view"])
    def mask(self, request: HttpRequest, rows: QuerySet[Example]) -> None:
        datasets.mask_examples(rows, user=request.user)


@admin.register(DatasetVersion)
class DatasetVersionAdmin(ReadOnly, OnlyAdmins, ModelAdmin):
    list_display = ("__str__", "kind", "state", "rows", "short_hash", "redacted_rows", "created_at")
    list_filter = ("status", "kind", ("redacted_at", admin.EmptyFieldListFilter))
    list_select_related = ("dataset",)
    search_fields = ("dataset__name", "content_hash")
    actions = ("validate", "compare")

    @display(description="status", label={"Ready": "success", "Failed": "danger", "Freezing": "info"})
    def state(self, version: DatasetVersion) -> str:
        return version.get_status_display()

    @display(description="content hash")
    def short_hash(self, version: DatasetVersion) -> str:
        return version.content_hash[:12]

    @admin.action(description="Validate for a training", permissions=["view"])
    def validate(self, request: HttpRequest, rows: QuerySet[DatasetVersion]) -> HttpResponse | None:
        """What is wrong with rows depends on who learns them: the form of a new job asks that, and checks first."""
        ready = [version for version in rows if version.status == DatasetVersion.Status.READY]
        if len(ready) != 1:
            messages.error(request, "Choose one version that is ready.")
            return None
        messages.info(request, "Choose a base and “Check first”: every row is read as the training would read it.")
        method = METHOD_OF_KIND[Dataset.Kind(ready[0].kind)]
        return lead_to("jobs:new", method=method.value, data_source=f"version-{ready[0].pk}")

    @admin.action(description="Compare two", permissions=["view"])
    def compare(self, request: HttpRequest, rows: QuerySet[DatasetVersion]) -> HttpResponse | None:
        chosen = sorted(rows, key=lambda version: version.number)
        if len(chosen) != 2 or chosen[0].dataset_id != chosen[1].dataset_id:
            messages.error(request, "Choose two versions of the same dataset.")
            return None
        return lead_to("datasets:diff", chosen[0].dataset_id, old=chosen[0].number, new=chosen[1].number)


class EventInline(ReadOnly, TabularInline):
    model = JobEvent
    extra = 0
    per_page = 50
    fields = readonly_fields = ("created_at", "level", "code", "message")


@admin.register(FineTuningJob)
class FineTuningJobAdmin(ReadOnly, OnlyAdmins, ModelAdmin):
    list_display = ("__str__", "state", "method", "base", "target", "progress", "priority", "created_at", "page")
    list_filter = ("status", "method")
    list_select_related = ("dataset_version__dataset", "result_version__model")
    search_fields = ("name", "target", "base")
    exclude = ("owner_token", "event_offset", "request_key")
    inlines = (EventInline,)
    actions = ("validate", "start", "cancel", "resume", "retry")

    @display(description="status", label=JOB_LABELS)
    def state(self, job: FineTuningJob) -> str:
        return job.get_status_display()

    @display(description="progress")
    def progress(self, job: FineTuningJob) -> str:
        return f"{job.step} of {job.total_steps}" if job.total_steps else ""

    @display(description="page")
    def page(self, job: FineTuningJob) -> str:
        return link("Open", f"/jobs/{job.pk}/")

    @admin.action(description="Validate: what the check of its data found", permissions=["view"])
    def validate(self, request: HttpRequest, rows: QuerySet[FineTuningJob]) -> HttpResponse | None:
        """The pre-flight page, while it is checked, too; from there the data is checked again with other settings."""
        if len(rows) == 1:
            return lead_to("jobs:preflight", rows[0].pk)
        messages.error(request, "Choose one job.")
        return None

    @admin.action(description="Start what was only checked", permissions=["view"])
    def start(self, request: HttpRequest, rows: QuerySet[FineTuningJob]) -> None:
        run_on_each(request, rows, jobs.start_job, "Started")

    @admin.action(description="Cancel", permissions=["view"])
    def cancel(self, request: HttpRequest, rows: QuerySet[FineTuningJob]) -> None:
        run_on_each(request, rows, jobs.cancel_job, "Cancelled")

    @admin.action(description="Resume from the last checkpoint", permissions=["view"])
    def resume(self, request: HttpRequest, rows: QuerySet[FineTuningJob]) -> None:
        run_on_each(request, rows, jobs.resume_job, "Resumed")

    @admin.action(description="Try again as a new job", permissions=["view"])
    def retry(self, request: HttpRequest, rows: QuerySet[FineTuningJob]) -> None:
        run_on_each(request, rows, lambda job: jobs.retry_job(job, user=request.user), "New jobs")


@admin.register(Schedule)
class ScheduleAdmin(ReadOnly, OnlyAdmins, ModelAdmin):
    list_display = ("name", "is_enabled", "cron", "time_zone", "dataset", "target", "last_checked_at", "last_outcome")
    list_filter = ("is_enabled", "method")
    list_select_related = ("dataset",)
    search_fields = ("name", "target", "dataset__name")
    exclude = ("periodic_task",)
    actions = ("enable", "disable")

    @admin.action(description="Switch on", permissions=["view"])
    def enable(self, request: HttpRequest, rows: QuerySet[Schedule]) -> None:
        run_on_each(request, rows, lambda row: change_schedule(row, user=request.user, is_enabled=True), "Switched on")

    @admin.action(description="Switch off", permissions=["view"])
    def disable(self, request: HttpRequest, rows: QuerySet[Schedule]) -> None:
        run_on_each(
            request, rows, lambda row: change_schedule(row, user=request.user, is_enabled=False), "Switched off"
        )


@admin.register(Evaluation)
class EvaluationAdmin(ReadOnly, OnlyAdmins, ModelAdmin):
    list_display = ("version", "status", "stop_rate_before", "stop_rate_after", "warned", "created_at", "page")
    list_filter = ("status",)
    list_select_related = ("version__model",)
    search_fields = ("version__model__slug",)

    @display(description="warnings")
    def warned(self, evaluation: Evaluation) -> int:
        return len(evaluation.warnings)

    @display(description="page")
    def page(self, evaluation: Evaluation) -> str:
        return link("Open", f"/jobs/{evaluation.job_id}/") if evaluation.job_id else ""


@admin.register(Lineage)
class LineageAdmin(VersionActions, ReadOnly, OnlyAdmins, ModelAdmin):
    list_display = ("version", "method", "dataset_version", "base_version", "withdrawn", "created_at", "page")
    list_filter = ("method", ("withdrawn_at", admin.EmptyFieldListFilter))
    list_select_related = ("version__model", "dataset_version__dataset", "base_version__model")
    search_fields = ("version__model__slug", "dataset_version__dataset__name")

    @display(description="trained on withdrawn rows", label={"yes": "danger"})
    def withdrawn(self, lineage: Lineage) -> str:
        return "yes" if lineage.withdrawn_at else "no"

    @display(description="page")
    def page(self, lineage: Lineage) -> str:
        model = lineage.version.model
        return link("Versions", reverse("versions:list", args=[model.slug]))


# The hub knows nothing of the loop, so its page of versions gets its actions here.
admin.site.unregister(ModelVersion)


@admin.register(ModelVersion)
class AnyVersionAdmin(VersionActions, ModelVersionAdmin):
    """All of them, also those that were not trained here."""
