"""A dataset with rows, two versions and imports in different states, for the sweep over every address."""

from __future__ import annotations

from typing import Any

from finetuning import datasets
from finetuning.formats import check_example
from finetuning.models import Dataset, DatasetImport

SEEN = {"container": "csv", "encoding": "utf-8", "delimiter": ",", "has_header": True, "columns": {}, "format_name": ""}


def make_dataset_values(admin, *, name: str) -> dict[str, Any]:
    """What paths name them by. Uploads have datasets of their own: a deletion takes their file along."""
    dataset = datasets.create_dataset(name, user=admin, kind="classification")
    for count in (11, 1):
        add_rows(dataset, count)
        datasets.freeze_now(dataset, user=admin)
    add_rows(dataset, 1)  # so that there is something new to freeze
    part, newest, columns = (datasets.create_dataset(f"{name} {n}", user=admin) for n in range(3))
    uploads = {
        item: datasets.start_upload(item, file_name=name, size=len("{}"), user=admin)
        for item in (dataset, part, newest)
    }
    waiting = DatasetImport.objects.create(
        dataset=columns,
        status=DatasetImport.Status.WAITING,
        file_name=name,
        layout=SEEN | {"seen_columns": ["Review", "label"]},
    )
    return {
        "dataset_id": dataset.pk,
        "import_id": uploads[dataset].pk,
        "example_id": dataset.examples.first().pk,
        "version_number": 2,
        "part_number": 1,
        "api:receive_part dataset_id": part.pk,
        "api:receive_part import_id": uploads[part].pk,
        "api:receive_newest_part dataset_id": newest.pk,
        "api:set_layout dataset_id": columns.pk,
        "api:set_layout import_id": waiting.pk,
    }


def add_rows(dataset: Dataset, count: int) -> None:
    start = dataset.examples.count()
    rows = [{"text": f"Film {start + number}", "label": "good"} for number in range(count)]
    drafts = [datasets.Draft(check_example("classification", row)[0]) for row in rows]
    datasets.add_drafts(dataset, drafts, source_import=None, is_approved=True)
    dataset.refresh_from_db()
