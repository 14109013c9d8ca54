"""What a child process is told to do (`spec.json`), and the rows of the files it names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from finetuning.training.errors import DataError, HyperparametersError, SpecError
from finetuning.training.hyperparameters import Hyperparameters, Method, kto_weights

KINDS = {
    Method.LORA_SFT: ("chat",),
    Method.FULL_SFT: ("chat",),
    Method.DPO: ("preference",),
    Method.KTO: ("kto",),
    Method.CLASSIFICATION: ("classification",),
    Method.MASKED_LM: ("text", "classification"),
}
USE_GPU = {True: "true", False: "false", None: "auto"}


class Mode(StrEnum):
    PREFLIGHT = "preflight"
    TRAIN = "train"
    EVALUATE = "evaluate"


@dataclass(frozen=True)
class Row:
    """`number` counts from 0 in its file; `id` is the example's."""

    number: int
    id: int | None
    content: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """`hyperparameters` are those chosen on top of the method's defaults; `tuned` and `prompts` are evaluate's."""

    mode: Mode
    method: Method
    kind: str
    base: Path
    files: dict[str, Path]
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    system_prompt: str = ""
    sample_prompts: Sequence[str] = ()
    use_gpu: str = "auto"
    adapter: Path | None = None
    tuned: Path | None = None
    prompts: Sequence[dict[str, Any]] = ()
    processes: int = 1

    @classmethod
    def read(cls, file: Path) -> Spec:
        """Raises `SpecError`."""
        try:
            values = json.loads(file.read_text())
            use_gpu = values.get("use_gpu", "auto")
            spec = cls(
                mode=Mode(values["mode"]),
                method=Method(values["method"]),
                kind=values["kind"],
                base=Path(values["base"]),
                files={split: Path(path) for split, path in values["files"].items() if path},
                hyperparameters=values.get("hyperparameters") or {},
                system_prompt=values.get("system_prompt") or "",
                sample_prompts=values.get("sample_prompts") or (),
                use_gpu=USE_GPU[use_gpu] if use_gpu in USE_GPU else str(use_gpu),
                adapter=Path(values["adapter"]) if values.get("adapter") else None,
                tuned=Path(values["tuned"]) if values.get("tuned") else None,
                prompts=values.get("prompts") or (),
                processes=int(values.get("processes") or 1),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SpecError(f"{file.name} cannot be read: {type(error).__name__}: {error}") from error
        spec._check()
        return spec

    @property
    def tuned_folder(self) -> Path:
        """Raises `SpecError`."""
        if self.tuned is None:
            raise SpecError("The spec names no tuned model to evaluate.")
        return self.tuned

    def rows(self, split: str) -> list[Row]:
        """Raises `DataError` for a file that is not there or broken. A split without a file has no rows."""
        return list(read_rows(self.files[split])) if split in self.files else []

    def resolve(self, rows: Sequence[Row]) -> Hyperparameters:
        """The method's defaults for these training rows with what was chosen on top. Raises `HyperparametersError`."""
        chosen = dict(self.hyperparameters)
        if self.method is Method.KTO and not chosen.keys() & {"desirable_weight", "undesirable_weight"}:
            good = sum(bool(row.content.get("label")) for row in rows)
            chosen |= kto_weights(good, len(rows) - good)
        try:
            return Hyperparameters.for_method(self.method, rows=len(rows), **chosen)
        except (ValueError, TypeError) as error:
            raise HyperparametersError(str(error)) from error

    def _check(self) -> None:
        if self.kind not in KINDS[self.method]:
            raise SpecError(
                f"{self.method.value} needs a dataset of kind {' or '.join(KINDS[self.method])}, not {self.kind}."
            )
        if self.mode is not Mode.EVALUATE and "train" not in self.files:
            raise SpecError("The spec names no file of training rows.")


def read_rows(file: Path) -> Iterator[Row]:
    """The rows of a split, in order. Raises `DataError` with the line's number."""
    number = -1
    try:
        with file.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream):
                values = json.loads(line)
                yield Row(number, values.get("id"), values["content"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file.name} cannot be read at line {number + 1}: {type(error).__name__}: {error}") from error
