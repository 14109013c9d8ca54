"""The model card of a trained version, Markdown: what it is made of and how it did, from what is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from finetuning.models import Evaluation, FineTuningJob, Lineage
from models_hub.models import ModelVersion

# Those that every reader of a card looks for; the rest is in the lineage.
SHOWN_HYPERPARAMETERS = (
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_length",
    "lora_r",
    "lora_alpha",
    "beta",
    "mlm_probability",
    "seed",
)
OF_METHOD = {
    "lora_sft": {"lora_r", "lora_alpha"},
    "dpo": {"lora_r", "lora_alpha", "beta"},
    "kto": {"lora_r", "lora_alpha", "beta"},
    "masked_lm": {"mlm_probability"},
}
OF_SOME = {"lora_r", "lora_alpha", "beta", "mlm_probability"}


def write_card(
    version: ModelVersion, lineage: Lineage, job: FineTuningJob, evaluation: Evaluation | None = None
) -> str:
    """Facts only. Without an evaluation it says that there is none yet."""
    parts = [
        f"# {version}",
        f"{version.model.description}".strip() or version.model.name,
        _section("Base", _base(lineage)),
        _section("Data", _data(job)),
        _section("Method", _method(lineage, job)),
        _section("Results", list(_results(evaluation))),
        _section("Licence", _licence(lineage)),
        _section("Limits", _limits(job, lineage)),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, lines: list[str]) -> str:
    return "\n".join([f"## {title}", "", *lines])


def _base(lineage: Lineage) -> list[str]:
    lines = [f"- Model: {lineage.base_version} ({lineage.base_version.source or lineage.base_version.provider_model})"]
    if lineage.base_fingerprint:
        lines.append(f"- Fingerprint of its files: `{lineage.base_fingerprint}`")
    return lines


def _data(job: FineTuningJob) -> list[str]:
    version = job.dataset_version
    counts = ", ".join(f"{rows} {split}" for split, rows in version.counts.items())
    lines = [
        f"- Dataset: {version.dataset.name}, version {version.number} ({version.get_kind_display().lower()})",
        f"- Rows: {version.rows} ({counts})" if counts else f"- Rows: {version.rows}",
        f"- Content hash: `{version.content_hash}`",
    ]
    report = job.preflight or {}
    if report.get("tokens"):
        trained = report.get("trained_tokens") or 0
        lines.append(f"- Tokens: {report['tokens']:,}, of which {trained:,} are learnt")
    if left_out := sum((report.get("excluded_codes") or {}).values()):
        lines.append(f"- Rows left out by the pre-flight check: {left_out}")
    return lines


def _method(lineage: Lineage, job: FineTuningJob) -> list[str]:
    hidden = OF_SOME - OF_METHOD.get(lineage.method, set())
    values = {
        name: lineage.hyperparameters[name]
        for name in SHOWN_HYPERPARAMETERS
        if name not in hidden and lineage.hyperparameters.get(name) not in (None, 0)
    }
    lines = [f"- {job.get_method_display()}", *(f"- {name}: {value}" for name, value in values.items())]
    lines.append(f"- {job.step} steps on {job.device or 'this machine'}, {job.precision or 'float32'}")
    if lineage.packages:
        lines.append("- " + ", ".join(f"{name} {number}" for name, number in sorted(lineage.packages.items())))
    if job.system_prompt:
        lines.append("- It was trained with a system prompt, which it is also given in chat.")
    return lines


def _results(evaluation: Evaluation | None) -> Iterator[str]:
    if evaluation is None or evaluation.status != Evaluation.Status.COMPLETE:
        yield "It has not been evaluated yet."
        return
    yield "| measure | base | this version |"
    yield "| --- | --- | --- |"
    yield from _rows("", evaluation.before, evaluation.after)
    yield from _rows("general set: ", evaluation.general_before, evaluation.general_after)
    yield from _rows(
        "", {"answers that end": evaluation.stop_rate_before}, {"answers that end": evaluation.stop_rate_after}
    )
    for warning in evaluation.warnings:
        yield f"\n**Note:** {warning['message'] if isinstance(warning, Mapping) else warning}"


def _rows(prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*before, *after]):
        pair = [before.get(name), after.get(name)]
        if any(isinstance(value, int | float) and not isinstance(value, bool) for value in pair):
            yield f"| {prefix}{name} | {_number(pair[0])} | {_number(pair[1])} |"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def _licence(lineage: Lineage) -> list[str]:
    return [
        f"What was trained here is under the licence of its base, {lineage.base_version.model.name}, and of the texts "
        "it was trained on. Read both before you pass it on."
    ]


def _limits(job: FineTuningJob, lineage: Lineage) -> list[str]:
    lines = [
        "- It knows what its base knew and what the data above holds, and may be wrong about both.",
        "- It was measured on held-out rows of the same data and on a small general set: elsewhere it may do worse.",
    ]
    if job.dataset_version.rows < 100:
        lines.append("- So few rows teach a style or a few facts, not a skill.")
    if lineage.withdrawn_at:
        lines.append(f"- {lineage.withdrawn_rows} rows were withdrawn by people after it had been trained on them.")
    return lines
