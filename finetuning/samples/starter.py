"""The starter classifier: real sentences through the ordinary pipeline, so that `distilbert-sentiment` can answer."""

from __future__ import annotations

from pathlib import Path

from chat.errors import InvalidError
from finetuning import datasets, jobs
from finetuning.models import Dataset, DatasetImport, DatasetVersion, FineTuningJob
from finetuning.models.jobs import ENDED_JOBS
from finetuning.training.hyperparameters import Method
from models_hub.environment_sync import CLASSIFIER_ENCODER, CLASSIFIER_STARTER
from models_hub.models import PRODUCTION, ModelVersion

SAMPLE = "movie-sentences"
DATASET = "Movie sentences"
# Asked once, in the evaluation; which weights are kept is decided by the validation rows.
TEST_ROWS = 1_500
VALIDATION_SHARE = 0.05
# Of 5e-5, 1e-4 and 2e-4 with 2 and 3 epochs the best on validation rows: 86.2, 87.2 (3 epochs: 87.5) and 86.0 %.
HYPERPARAMETERS = {"learning_rate": 1e-4, "num_train_epochs": 3}


def find_answering() -> ModelVersion | None:
    """What `distilbert-sentiment` answers with already."""
    ready = ModelVersion.objects.filter(model__slug=CLASSIFIER_STARTER, is_ready=True, retired_at=None)
    return ready.select_related("model").filter(aliases__name=PRODUCTION).first()


def find_running() -> FineTuningJob | None:
    """A starter job that has not ended: a second one would do the same work again."""
    running = FineTuningJob.objects.exclude(status__in=ENDED_JOBS)
    return running.filter(target=CLASSIFIER_STARTER, dataset_version__dataset__name=DATASET).first()


def freeze_sentences(file: Path) -> DatasetVersion:
    """The sentences as a dataset, frozen with rows held out. Reads the file once; what people decided since counts.

    Blocks for seconds. Raises `ChatError` with what is wrong.
    """
    dataset = datasets.find_or_create_dataset(DATASET)
    done = DatasetImport.objects.filter(dataset=dataset, file_name=file.name, status=DatasetImport.Status.SUCCEEDED)
    if not done.exists():
        source_import = datasets.import_file(dataset, file)
        if source_import.status != DatasetImport.Status.SUCCEEDED:
            raise InvalidError(source_import.error_message or f"{file.name} could not be imported.")
    return datasets.freeze_now(dataset, user=None, shares=_shares(dataset))


def create_starter_job(version: DatasetVersion) -> FineTuningJob:
    """Trains the encoder, not what was trained of it before: so that it can be repeated. Raises `InvalidError`."""
    encoder = ModelVersion.objects.filter(model__slug=CLASSIFIER_STARTER, source=CLASSIFIER_ENCODER).first()
    if encoder is None:
        raise InvalidError("The starter encoder is not registered. Run `python manage.py setup` first.")
    return jobs.create_job(
        user=None,
        method=Method.CLASSIFICATION.value,
        base=f"{CLASSIFIER_STARTER}@{encoder.number}",
        target=CLASSIFIER_STARTER,
        dataset_version=version,
        hyperparameters=dict(HYPERPARAMETERS),
        name="Starter sentiment",
    )


def _shares(dataset: Dataset) -> dict[str, float]:
    rows = max(1, dataset.examples.filter(status="approved").count())
    return {"test": min(TEST_ROWS / rows, 0.2), "validation": VALIDATION_SHARE}
