"""The notebook runs from its first cell to its last, with a tiny model built on the spot."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.finetuning.training.builders import save_base

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "fine_tuning.ipynb"
VALUES = {"max_steps": 30, "learning_rate": 0.05, "precision": "float32"}

pytestmark = pytest.mark.engine


def with_parameters(notebook: nbformat.NotebookNode, **values: object) -> nbformat.NotebookNode:
    """A cell after the one tagged `parameters`, which says them anew."""
    (place,) = [n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(source))
    return notebook


def texts(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/html", "") for output in outputs)


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> tuple[nbformat.NotebookNode, Path]:
    folder = tmp_path_factory.mktemp("notebook")
    base = save_base(folder / "tiny-llama")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with_parameters(
        notebook, BASE=str(base), FOLDER=str(folder / "run"), HYPERPARAMETERS=VALUES, SAMPLE_PROMPTS=["Hello"]
    )
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}})
    return client.execute(), folder / "run"


def test_notebook_gives_a_lora_and_a_model(executed):
    _, folder = executed
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert (folder / "model" / "model.safetensors").is_file()


def test_notebook_shows_report_curve_and_answers(executed):
    notebook, _ = executed
    shown = texts(notebook)
    assert "48 examples, 0 rows refused" in shown
    assert "Green is trained." in shown and "<svg" in shown and "<polyline" in shown
    assert "held-out eval_loss" in shown and "<th>Tuned</th>" in shown


def test_notebook_is_kept_without_outputs():
    """They would hold paths and texts of somebody's machine."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")] == []
