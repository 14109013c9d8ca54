"""`/api/datasets`: datasets, what comes into them, the review of their rows, and frozen versions. For curators."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from django.http import HttpRequest, StreamingHttpResponse
from ninja import Query, Router, Status
from pydantic import Field

from chat.errors import InvalidError, TooLongError
from config.api_lists import ListQuery, cut_list
from config.api_schema import RequestSchema
from config.streaming import stream_file
from finetuning import datasets
from finetuning.access import check_curator
from finetuning.api import dataset_schemas as schemas
from finetuning.api.dataset_schemas import (
    dataset_to_dict,
    diff_to_dict,
    example_to_dict,
    import_to_dict,
    version_to_dict,
)
from finetuning.conversations.examples import Filters, build_dataset, count_rows
from finetuning.datasets.bulk_review import decide, decide_about_matching
from finetuning.models import Dataset, DatasetImport, Example

router = Router()


class DatasetCreation(RequestSchema):
    name: str = Field(examples=["Movie sentences"])
    kind: str = Field("", description="Empty: the first row decides.", examples=["classification"])
    description: str = ""
    file_name: str | None = Field(None, description="With `size`: an upload of this file is begun as well.")
    size: int | None = Field(None, ge=0, le=2**62, description="Bytes of the file.")
    is_approved: bool = Field(True, description="Whether the rows of the file need no review.")


class DatasetChange(RequestSchema):
    name: str | None = Field(None, examples=["Movie reviews"])
    description: str | None = None


class UploadCreation(RequestSchema):
    file_name: str = Field(examples=["rows.jsonl"])
    size: int = Field(ge=0, le=2**62, description="Bytes; at most 1 GiB.", examples=[1000])
    is_approved: bool = Field(True, description="Whether its rows need no review.")


class LayoutChoice(RequestSchema):
    format_name: str = Field(examples=["classification"])
    columns: dict[str, str] = Field(
        {}, description="Which column of the file holds a field, where the names differ.", examples=[{"text": "Review"}]
    )


class ExampleChange(RequestSchema):
    content: dict[str, Any] | None = Field(
        None, description="In the shape the row has now.", examples=[{"text": "A fine film.", "label": "good"}]
    )
    label: str | None = None
    status: Literal["pending", "approved", "rejected"] | None = Field(None, examples=["approved"])


class ExampleFilter(RequestSchema):
    status: str = ""
    query: str = Field("", description="Text in the row.")
    finding: str = Field("", description="Kind of personal data, or `any`.")
    origin: str = ""
    label: str = ""


class BulkAction(RequestSchema):
    action: Literal["approve", "reject", "reopen", "relabel", "mask", "delete"] = Field(examples=["approve"])
    ids: list[int] | None = Field(None, max_length=1000, examples=[[1]])
    filter: ExampleFilter | None = Field(None, description="Instead of ids: all rows that fit; {} means every row.")
    label: str = Field("", description="For relabel.")


class Freezing(RequestSchema):
    seed: int = Field(42, examples=[42])
    shares: dict[str, float] | None = Field(
        None, description="The shares of validation and test; training gets the rest.", examples=[{"validation": 0.1}]
    )
    notes: str = Field("", max_length=5000)


class ConversationChoice(RequestSchema):
    filters: dict[str, Any] = Field({}, description="kind, rating, corrected, model, version, since, until, tags ...")


class ConversationDataset(ConversationChoice):
    name: str | None = Field(None, description="Of a new dataset.", examples=["Good answers"])
    dataset_id: int | None = Field(None, description="Or one that is there.", examples=[None])


@router.get("", response=schemas.DatasetList, summary="List datasets")
def list_datasets(request: HttpRequest, query: Query[schemas.PageQuery]) -> dict[str, Any]:
    """The latest changed first."""
    page = datasets.list_datasets(user=request.auth, cursor=query.cursor, limit=query.limit)
    return {"items": [dataset_to_dict(row) for row in page.items], "next_cursor": page.next_cursor}


@router.post(
    "",
    response={201: schemas.DatasetWithImport},
    by_alias=True,
    summary="Make a dataset, and begin an upload into it",
)
def create_dataset(request: HttpRequest, body: DatasetCreation) -> Status[dict[str, Any]]:
    check_curator(request.auth)
    values = body.dict()
    file_name, size, is_approved = (values.pop(name) for name in ("file_name", "size", "is_approved"))
    if (file_name is None) != (size is None):
        raise InvalidError("An upload needs both file_name and size.")
    if file_name is None:
        made, upload = datasets.create_dataset(**values, user=request.auth), None
    else:
        made, upload = datasets.create_with_upload(
            **values, file_name=file_name, size=size, is_approved=is_approved, user=request.auth
        )
    return Status(201, dataset_to_dict(made) | {"import": import_to_dict(upload) if upload else None})


@router.post(
    "/from-conversations",
    response={201: schemas.DatasetWithImport},
    by_alias=True,
    summary="Build one from conversations",
)
def build_from_conversations(request: HttpRequest, body: ConversationDataset) -> Status[dict[str, Any]]:
    """Only what people agreed to. The rows wait for review."""
    check_curator(request.auth)
    target = body.name if body.dataset_id is None else _get(request, body.dataset_id)
    if target is None or None not in (body.name, body.dataset_id):
        raise InvalidError("Give either the name of a new dataset or the id of one that is there.")
    source_import = build_dataset(target, Filters.from_dict(body.filters), user=request.auth)
    return Status(201, dataset_to_dict(source_import.dataset) | {"import": import_to_dict(source_import)})


@router.post("/from-conversations/count", response=schemas.Count, summary="Count what a build would give")
def count_from_conversations(request: HttpRequest, body: ConversationChoice) -> dict[str, int]:
    check_curator(request.auth)
    return {"count": count_rows(Filters.from_dict(body.filters), user=request.auth)}


@router.get("/{int:dataset_id}", response=schemas.DatasetDetails, summary="Read a dataset")
def get_dataset(request: HttpRequest, dataset_id: int) -> dict[str, Any]:
    dataset = _get(request, dataset_id)
    return dataset_to_dict(dataset) | {"measures": datasets.describe_dataset(dataset)}


@router.patch("/{int:dataset_id}", response=schemas.Dataset, summary="Rename or describe a dataset")
def change_dataset(request: HttpRequest, dataset_id: int, body: DatasetChange) -> dict[str, Any]:
    return dataset_to_dict(datasets.rename_dataset(_get(request, dataset_id), **body.dict(exclude_unset=True)))


@router.delete("/{int:dataset_id}", response={204: None}, summary="Delete a dataset")
def delete_dataset(request: HttpRequest, dataset_id: int) -> Status[None]:
    """Refused (409) while a training that has not ended uses it."""
    datasets.delete_dataset(_get(request, dataset_id))
    return Status(204, None)


@router.get("/{int:dataset_id}/imports", response=schemas.ImportList, summary="List what came in")
def list_imports(request: HttpRequest, dataset_id: int, query: Query[schemas.PageQuery]) -> dict[str, Any]:
    page = datasets.list_imports(_get(request, dataset_id), cursor=query.cursor, limit=query.limit)
    return {"items": [import_to_dict(row) for row in page.items], "next_cursor": page.next_cursor}


@router.post("/{int:dataset_id}/imports", response={201: schemas.Import}, summary="Begin an upload")
def start_upload(request: HttpRequest, dataset_id: int, body: UploadCreation) -> Status[dict[str, Any]]:
    """Then PUT its parts, numbered from 1, each `part_size` bytes long, the last one with what is left."""
    dataset = _get(request, dataset_id)
    return Status(201, import_to_dict(datasets.start_upload(dataset, **body.dict(), user=request.auth)))


@router.get(
    "/{int:dataset_id}/imports/{uuid:import_id}", response=schemas.Import, summary="Read the state of an import"
)
def get_import(request: HttpRequest, dataset_id: int, import_id: UUID) -> dict[str, Any]:
    return import_to_dict(_get_import(request, dataset_id, import_id))


@router.put("/{int:dataset_id}/parts/{int:part_number}", response=schemas.Received, summary="Send a part")
def receive_newest_part(request: HttpRequest, dataset_id: int, part_number: int) -> dict[str, Any]:
    """Of the newest upload of this dataset."""
    return _receive(request, datasets.get_newest_upload(_get(request, dataset_id)), part_number)


@router.put(
    "/{int:dataset_id}/imports/{uuid:import_id}/parts/{int:part_number}",
    response=schemas.Received,
    summary="Send a part of an upload",
)
def receive_part(request: HttpRequest, dataset_id: int, import_id: UUID, part_number: int) -> dict[str, Any]:
    """The raw bytes as the body. In any order; one sent twice is kept once. With the last one the file is read."""
    return _receive(request, _get_import(request, dataset_id, import_id), part_number)


@router.post(
    "/{int:dataset_id}/imports/{uuid:import_id}/layout", response=schemas.Import, summary="Say which column is what"
)
def set_layout(request: HttpRequest, dataset_id: int, import_id: UUID, body: LayoutChoice) -> dict[str, Any]:
    """For an import whose status is `waiting`."""
    return import_to_dict(datasets.set_layout(_get_import(request, dataset_id, import_id), **body.dict()))


@router.post("/{int:dataset_id}/imports/{uuid:import_id}/cancel", response=schemas.Import, summary="Cancel an import")
def cancel_import(request: HttpRequest, dataset_id: int, import_id: UUID) -> dict[str, Any]:
    """Rows it has added go again. One that has ended stays as it is."""
    return import_to_dict(datasets.cancel_import(_get_import(request, dataset_id, import_id)))


@router.get(
    "/{int:dataset_id}/imports/{uuid:import_id}/problems", response=schemas.ProblemList, summary="List problems by line"
)
def list_problems(
    request: HttpRequest, dataset_id: int, import_id: UUID, query: Query[schemas.ProblemQuery]
) -> dict[str, Any]:
    """The first 200 of each code; `codes` of the import counts all."""
    source_import = _get_import(request, dataset_id, import_id)
    page = datasets.list_problems(source_import, code=query.code, cursor=query.cursor, limit=query.limit)
    return {"items": page.items, "next_cursor": page.next_cursor}


@router.get("/{int:dataset_id}/examples", response=schemas.ExampleList, summary="List or search rows")
def list_examples(request: HttpRequest, dataset_id: int, query: Query[schemas.ExampleQuery]) -> dict[str, Any]:
    page = datasets.list_examples(_get(request, dataset_id), user=request.auth, **query.dict())
    return {"items": [example_to_dict(row) for row in page.items], "next_cursor": page.next_cursor}


@router.post("/{int:dataset_id}/examples/bulk", response=schemas.Changed, summary="Decide about many rows")
def decide_about_many(request: HttpRequest, dataset_id: int, body: BulkAction) -> dict[str, Any]:
    """When more than 2,000 rows fit a filter a worker does it, soon after: `is_done` is false then."""
    dataset = _get(request, dataset_id)
    if (body.ids is None) == (body.filter is None):
        raise InvalidError("Say which rows: give either ids or a filter.")
    what = {"action": body.action, "label": body.label, "user": request.auth}
    if body.filter is not None:
        changed, is_done = decide_about_matching(dataset, filters=body.filter.dict(), **what)
    else:
        ids = [number for number in body.ids or () if abs(number) < 2**63]
        changed, is_done = decide(dataset.examples.filter(pk__in=ids), **what), True
    return {"changed": changed, "is_done": is_done}


@router.get("/{int:dataset_id}/examples/{int:example_id}", response=schemas.Example, summary="Read a row")
def get_example(request: HttpRequest, dataset_id: int, example_id: int) -> dict[str, Any]:
    return example_to_dict(_get_example(request, dataset_id, example_id))


@router.patch("/{int:dataset_id}/examples/{int:example_id}", response=schemas.Example, summary="Edit or decide")
def change_example(request: HttpRequest, dataset_id: int, example_id: int, body: ExampleChange) -> dict[str, Any]:
    """The content first, then the label, then the status. The first content is kept as `original`."""
    example = _get_example(request, dataset_id, example_id)
    one = Example.objects.filter(pk=example.pk)
    if body.content is not None:
        datasets.edit_example(example, body.content, user=request.auth)
    if body.label is not None:
        datasets.relabel(one, body.label, user=request.auth)
    if body.status is not None:
        act = {"approved": datasets.approve, "rejected": datasets.reject, "pending": datasets.reopen}[body.status]
        act(one, user=request.auth)
    return example_to_dict(_get_example(request, dataset_id, example_id))


@router.get("/{int:dataset_id}/versions", response=schemas.VersionList, summary="List frozen versions")
def list_versions(request: HttpRequest, dataset_id: int, query: Query[ListQuery]) -> dict[str, Any]:
    versions = [version_to_dict(version) for version in datasets.list_versions(_get(request, dataset_id))]
    return cut_list(versions, query, key=lambda version: version["number"])


@router.post("/{int:dataset_id}/versions", response={201: schemas.Version}, summary="Freeze a version")
def freeze(request: HttpRequest, dataset_id: int, body: Freezing) -> Status[dict[str, Any]]:
    """Of the approved rows; there must be at least 10. When the newest holds exactly these: 409, `unchanged`."""
    version = datasets.freeze(_get(request, dataset_id), user=request.auth, **body.dict())
    return Status(201, version_to_dict(version))


@router.get("/{int:dataset_id}/versions/{int:version_number}", response=schemas.Version, summary="Read a version")
def get_version(request: HttpRequest, dataset_id: int, version_number: int) -> dict[str, Any]:
    return version_to_dict(datasets.get_version(_get(request, dataset_id), version_number))


@router.get("/{int:dataset_id}/versions/{int:version_number}/export", summary="Download a version as JSON lines")
def export_version(
    request: HttpRequest, dataset_id: int, version_number: int, query: Query[schemas.ExportQuery]
) -> StreamingHttpResponse:
    """In the shapes other tools read as well; without `split` all splits one after the other."""
    version = datasets.get_version(_get(request, dataset_id), version_number)
    pieces = datasets.iterate_export(datasets.require_ready(version), query.split)
    name = f"dataset-{dataset_id}-v{version_number}{f'-{query.split}' if query.split else ''}.jsonl"
    return stream_file(pieces, name=name, content_type="application/jsonl")


@router.get(
    "/{int:dataset_id}/versions/{int:version_number}/diff",
    response=schemas.Diff,
    summary="Compare two versions",
)
def diff_version(
    request: HttpRequest, dataset_id: int, version_number: int, query: Query[schemas.DiffQuery]
) -> dict[str, Any]:
    """What came and went since `since`; without it since the version before."""
    dataset = _get(request, dataset_id)
    new = datasets.get_version(dataset, version_number)
    old = datasets.get_version(dataset, query.since) if query.since else datasets.get_version_before(new)
    return diff_to_dict(datasets.diff_versions(old, new))


def _get(request: HttpRequest, dataset_id: int) -> Dataset:
    return datasets.get_dataset(dataset_id, user=request.auth)


def _get_import(request: HttpRequest, dataset_id: int, import_id: UUID) -> DatasetImport:
    return datasets.get_import(import_id, user=request.auth, dataset=_get(request, dataset_id))


def _get_example(request: HttpRequest, dataset_id: int, example_id: int) -> Example:
    return datasets.get_example(example_id, user=request.auth, dataset=_get(request, dataset_id))


def _receive(request: HttpRequest, source_import: DatasetImport, number: int) -> dict[str, Any]:
    length = request.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > datasets.PART_SIZE:
        raise TooLongError(f"A part has at most {datasets.PART_SIZE:,} bytes.")
    received = datasets.receive_part(source_import, number, request.body)
    source_import.refresh_from_db()
    parts = datasets.count_parts(source_import)
    return {"received": received, "parts": parts, "status": source_import.status}
