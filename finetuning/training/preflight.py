"""The pre-flight report: everything that can be known before a run begins. The hours are not spent first.

Errors in the report forbid the run. It is told by a dict that JSON can hold; `child.py` runs it for mode "preflight".
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finetuning.training import checks
from finetuning.training.checks import Findings
from finetuning.training.classification import PreparedClassifier
from finetuning.training.encoders import EncodedTexts
from finetuning.training.errors import DataError, TrainingError
from finetuning.training.events import Phase
from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.labels import Cut, Excluded, PreparationReport
from finetuning.training.loading import BaseModel
from finetuning.training.masked_lm import PreparedMaskedLm
from finetuning.training.measuring import measure
from finetuning.training.memory import explained
from finetuning.training.methods import Examples, prepare, read_examples
from finetuning.training.preferences import PreparedPreferences, conversations_of
from finetuning.training.rendering import ChatRenderer, TrainingSequence
from finetuning.training.runs import Run, RunOptions
from finetuning.training.saving import MANIFEST
from finetuning.training.sft import PreparedSft
from finetuning.training.specs import Row, Spec

MAX_LISTED, MAX_SAMPLES = 100, 8
# Weights, gradient moments and the best weights, each in float32; and as many checkpoints as are kept.
BYTES_TRAINED = 4
SHOWN = ("suggestion", "peak_memory_bytes", "missing")
Prepared = PreparedSft | PreparedPreferences | PreparedClassifier | PreparedMaskedLm


@dataclass
class Overview:
    """What was made of the rows, whatever the method. `sources[i]` is the row of `sequences[i]` or of `lengths[i]`."""

    lengths: list[int] = field(default_factory=list)
    histogram: dict[int, int] = field(default_factory=dict)
    max_length: int = 0
    sequences: list[TrainingSequence] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    excluded: list[Excluded] = field(default_factory=list)
    cut: list[Cut] = field(default_factory=list)
    tokens: int = 0
    trained_tokens: int = 0


def preflight(spec: Spec, options: RunOptions) -> dict[str, Any]:
    """Blocks for seconds to minutes. Raises what `errors.py` names only where no report can be written at all."""
    options.progress(Phase(name="checking"))
    found = Findings()
    rows, held_rows = spec.rows("train"), spec.rows("validation")
    values = spec.resolve(rows)
    examples, held = read_examples(spec.method, rows), read_examples(spec.method, held_rows)
    _check_rows(found, spec, examples, held, values)
    prepared, overview = _prepare(found, spec, options, values, examples, held)
    codes = Counter(excluded.code for excluded in (*examples.excluded, *overview.excluded))
    checks.check_excluded(found, codes, rows=len(rows))
    if prepared is not None:
        _check_prepared(found, spec, prepared, overview, examples, folder=options.folder)
        _check_held_out(found, prepared, held)
    renderer = getattr(prepared, "renderer", None)
    return {
        "rows": len(rows),
        "held_out_rows": len(held_rows),
        **_describe(overview, examples, ids={row.number: row.id for row in rows}),
        "excluded_codes": dict(codes),
        "template_hash": renderer.template_hash if renderer else "",
        "system_prompt": spec.system_prompt,
        "samples": _samples(prepared, overview, examples) if prepared else [],
        "labels": _labels(spec.method, examples.rows),
        "estimate": _estimate(found, prepared, options, spec.processes) if prepared and not found.errors else None,
        "warnings": found.warnings,
        "errors": found.errors,
        "hyperparameters": {**values.to_dict(), "max_length": overview.max_length or values.max_length},
    }


def _check_rows(found: Findings, spec: Spec, examples: Examples, held: Examples, values: Hyperparameters) -> None:
    checks.check_rows(found, spec.method, rows=len(examples.items), held_out=len(held.items) + len(held.excluded))
    checks.check_leaks(found, [row.content for row in examples.rows], [row.content for row in held.rows])
    if spec.method is Method.KTO and examples.items:
        checks.check_ratings(found, examples.items, values)
    if spec.method is Method.CLASSIFICATION:
        checks.check_labels(found, [row.label for row in examples.items], [row.label for row in held.items])


def _prepare(
    found: Findings, spec: Spec, options: RunOptions, values: Hyperparameters, examples: Examples, held: Examples
) -> tuple[Prepared | None, Overview]:
    """What the run itself would do with base and rows. What it would fail with becomes an error of the report."""
    if not examples.items:
        return None, Overview()
    try:
        with explained(values):
            prepared = prepare(spec, options, values, examples.items, held.items)
    except TrainingError as error:
        report = error.details.get("report")
        overview = Overview(excluded=report.excluded) if isinstance(report, PreparationReport) else Overview()
        if not _is_known(found, error):
            found.fail(error.code, error.message, **{key: error.details[key] for key in SHOWN if key in error.details})
        return None, overview
    return prepared, look_at(prepared)


def _is_known(found: Findings, error: TrainingError) -> bool:
    """A check of the rows has said it better."""
    return isinstance(error, DataError) and any(
        problem["code"] in {"one_rating", "one_label", "unknown_labels"} for problem in found.errors
    )


def look_at(prepared: Prepared) -> Overview:
    match prepared:
        case PreparedSft():
            report = prepared.training.report
            overview = Overview(
                lengths=[len(sequence) for sequence in prepared.training.sequences],
                histogram=report.length_histogram,  # of whole rows: what is cut is seen in it
                max_length=report.max_length,
                sequences=prepared.training.sequences,
                sources=prepared.training.rows,
                titles=[""] * len(prepared.training.sequences),
                excluded=report.excluded,
                cut=report.cut,
            )
        case PreparedPreferences():
            overview = _look_at_preferences(prepared)
        case PreparedClassifier() | PreparedMaskedLm():
            return _look_at_encoded(prepared.encoded)
    overview.tokens = sum(map(len, overview.sequences))
    overview.trained_tokens = sum(sequence.trained_tokens for sequence in overview.sequences)
    return overview


def _look_at_preferences(prepared: PreparedPreferences) -> Overview:
    """Of a pair both answers; of a rated answer itself, not the mismatched one it is measured against."""
    training, run = prepared.training, prepared.run
    titles = ("chosen", "rejected") if run.method is Method.DPO else ("answer",)
    window = run.base.context_window
    return Overview(
        lengths=[max(map(len, group[: len(titles)])) for group in training.groups],
        max_length=min(run.hyperparameters.max_length or window, window),
        sequences=[sequence for group in training.groups for sequence in group[: len(titles)]],
        sources=[row for row in training.kept for _ in titles],
        titles=list(titles) * len(training.groups),
        excluded=training.excluded,
    )


def _look_at_encoded(encoded: EncodedTexts) -> Overview:
    return Overview(
        lengths=encoded.lengths,
        max_length=encoded.max_length,
        sources=encoded.rows,
        cut=[Cut(row, 0, tokens, 0) for row, tokens in encoded.cut_tokens.items()],
        excluded=[Excluded(row, "no_words", "The text has no token to learn from.") for row in encoded.left_out],
        tokens=sum(encoded.lengths),
    )


def _check_prepared(
    found: Findings, spec: Spec, prepared: Prepared, overview: Overview, examples: Examples, *, folder: Path
) -> None:
    _check_disk(found, prepared.run, folder)
    if not isinstance(prepared, PreparedSft | PreparedPreferences):
        return
    renderer = prepared.renderer
    shortened = {cut.row for cut in overview.cut}
    cut = {number for number, row in enumerate(overview.sources) if row in shortened}
    checks.check_stop_tokens(found, renderer, overview.sequences, cut=cut)
    checks.check_trained_share(found, overview.sequences)
    checks.check_origin(found, read_origin(spec.adapter or spec.base), renderer)
    kept = [examples.items[row] for row in dict.fromkeys(overview.sources)]
    # The answers of a pair have one prompt: to look at one of them is to look at both.
    conversations = kept if isinstance(prepared, PreparedSft) else [conversations_of(item)[0] for item in kept]
    checks.check_like_in_chat(found, renderer, conversations, system_prompt=spec.system_prompt)
    if isinstance(prepared, PreparedPreferences) and spec.method is Method.DPO:
        checks.check_length_bias(found, prepared.training.groups)


def _check_held_out(found: Findings, prepared: Prepared, held: Examples) -> None:
    rows = len(held.items) + len(held.excluded)
    if not rows or prepared.run.objective.evaluation_tokens:
        return
    excluded = list(held.excluded)
    if isinstance(prepared, PreparedSft):
        excluded += prepared.held_out.report.excluded if prepared.held_out else []
    elif isinstance(prepared, PreparedPreferences):
        excluded += prepared.held_out.excluded
    checks.check_held_out(found, excluded, rows=rows)


def read_origin(folder: Path) -> dict[str, Any]:
    """What the manifest of a folder says of its training; nothing for a model that we did not train."""
    try:
        return json.loads((folder / MANIFEST).read_text()).get("origin") or {}
    except (OSError, ValueError, AttributeError):
        return {}


def _check_disk(found: Findings, run: Run, folder: Path) -> None:
    """Checkpoints, the best weights, and the whole model at the end."""
    trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad) * BYTES_TRAINED
    whole = sum(file.stat().st_size for file in run.base.folder.glob("*.safetensors"))
    needed = trained * 3 * (run.hyperparameters.save_total_limit + 1) + trained + whole
    free = shutil.disk_usage(folder).free
    if free < needed:
        found.fail("disk", f"The run needs about {needed / 1e9:.1f} GB of disk, and {free / 1e9:.1f} GB are free.")


def _estimate(found: Findings, prepared: Prepared, options: RunOptions, processes: int) -> dict[str, Any] | None:
    """R10: the longest batch and one evaluation batch now, not out of memory after hours."""
    try:
        return asdict(measure(prepared.run, options, processes=processes))
    except TrainingError as error:
        found.fail(error.code, error.message, **{key: error.details[key] for key in SHOWN if key in error.details})
        return None


def _describe(overview: Overview, examples: Examples, *, ids: Mapping[int, int | None]) -> dict[str, Any]:
    excluded = [
        *(asdict(item) | {"id": ids[item.row]} for item in examples.excluded),
        *(_named(item, examples.rows[item.row]) for item in overview.excluded),
    ]
    cut = overview.cut
    return {
        "sequences": len(overview.sequences) or len(overview.lengths),
        "excluded": sorted(excluded, key=lambda item: item["row"])[:MAX_LISTED],
        "cut": len(cut),
        "cut_messages": sum(item.messages for item in cut),
        "cut_tokens": sum(item.tokens for item in cut),
        "cut_rows": [_named(item, examples.rows[item.row]) for item in cut[:MAX_LISTED]],
        "max_length": overview.max_length,
        "tokens": overview.tokens,
        "trained_tokens": overview.trained_tokens,
        "trained_share": overview.trained_tokens / overview.tokens if overview.tokens else 0.0,
        "length_histogram": _ordered(overview.histogram or _histogram(overview.lengths)),
    }


def _named(item: Excluded | Cut, row: Row) -> dict[str, Any]:
    return {**asdict(item), "row": row.number, "id": row.id}


def _histogram(lengths: Sequence[int]) -> dict[int, int]:
    """Rows by the upper edge of their bin, a power of two, in tokens."""
    return Counter(1 << max(0, length - 1).bit_length() for length in lengths)


def _ordered(histogram: Mapping[int, int]) -> dict[str, int]:
    return {str(edge): histogram[edge] for edge in sorted(histogram)}


def _labels(method: Method, rows: Sequence[Row]) -> dict[str, int]:
    if method is Method.KTO:
        counts = Counter("good" if row.content["label"] else "bad" for row in rows)
    elif method is Method.CLASSIFICATION:
        counts = Counter(row.content["label"] for row in rows)
    else:
        return {}
    return dict(counts.most_common())


def _samples(prepared: Prepared, overview: Overview, examples: Examples) -> list[dict[str, Any]]:
    """Rows of all lengths, with what is trained. Of an encoder: what it is given."""
    chosen = _spread(overview.lengths if not overview.sequences else [len(s) for s in overview.sequences])
    if isinstance(prepared, PreparedSft | PreparedPreferences):
        return [_sample(prepared.renderer, overview, number, examples) for number in chosen]
    return [_encoded_sample(prepared.run.base, prepared.encoded, number, examples) for number in chosen]


def _spread(lengths: Sequence[int]) -> list[int]:
    """Positions from the shortest to the longest."""
    by_length = sorted(range(len(lengths)), key=lambda number: lengths[number])
    if len(by_length) <= MAX_SAMPLES:
        return by_length
    return [by_length[round(place * (len(by_length) - 1) / (MAX_SAMPLES - 1))] for place in range(MAX_SAMPLES)]


def _sample(renderer: ChatRenderer, overview: Overview, number: int, examples: Examples) -> dict[str, Any]:
    sequence, row = overview.sequences[number], examples.rows[overview.sources[number]]
    return {
        "row": row.number,
        "id": row.id,
        "title": overview.titles[number],
        "tokens": len(sequence),
        "trained_tokens": sequence.trained_tokens,
        "pieces": [{"text": text, "is_trained": is_trained} for text, is_trained in renderer.pieces(sequence)],
    }


def _encoded_sample(base: BaseModel, encoded: EncodedTexts, number: int, examples: Examples) -> dict[str, Any]:
    row = examples.rows[encoded.rows[number]]
    text = base.tokenizer.decode(encoded.ids[number], clean_up_tokenization_spaces=False)
    title = row.content.get("label", "")
    pieces = [{"text": text, "is_trained": False}]
    return {
        "row": row.number,
        "id": row.id,
        "title": title,
        "tokens": len(encoded.ids[number]),
        "trained_tokens": 0,
        "pieces": pieces,
    }
