"""Each method by name: what a dataset's rows become, and which function trains on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from finetuning.training.classification import LabelledText, train_classifier
from finetuning.training.errors import ConversationError
from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.labels import Excluded
from finetuning.training.loop import TrainingResult
from finetuning.training.masked_lm import train_masked_lm
from finetuning.training.preferences import PreferencePair, RatedAnswer, train_preferences
from finetuning.training.rendering import Message
from finetuning.training.runs import MERGED, RunOptions
from finetuning.training.saving import MANIFEST
from finetuning.training.sft import train_sft
from finetuning.training.specs import Row, Spec

Content = dict[str, Any]


@dataclass(frozen=True)
class Examples:
    """`items[i]` was read from `rows[i]`; `excluded` are rows (by number) that have no such form."""

    items: list[Any]
    rows: list[Row]
    excluded: list[Excluded]


def read_examples(method: Method, rows: Sequence[Row]) -> Examples:
    """A row that cannot be used is named and left out, whatever is wrong with it."""
    examples = Examples([], [], [])
    for row in rows:
        try:
            item = READERS[method](row.content)
        except ConversationError as error:
            examples.excluded.append(Excluded(row.number, error.code, error.message))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            examples.excluded.append(Excluded(row.number, "form", f"The row is not of the kind: {error!r}."))
        else:
            examples.items.append(item)
            examples.rows.append(row)
    return examples


def train(spec: Spec, options: RunOptions) -> dict[str, Any] | None:
    """What the last event carries; None for a run that was stopped. Raises what `errors.py` names."""
    rows = spec.rows("train")
    values = spec.resolve(rows)
    train_items = read_examples(spec.method, rows).items
    held_out = read_examples(spec.method, spec.rows("validation")).items
    outcome = _train(spec, options, values, train_items, held_out)
    if outcome.result.status == "stopped":
        return None
    return {
        "folders": outcome.folders,
        "metrics": before_and_after(outcome.result),
        "template_hash": getattr(outcome, "template_hash", ""),
        **_origin(outcome),
        "hyperparameters": values.to_dict(),
        "steps": outcome.result.step,
        "best_step": outcome.result.best_step,
        "tokens": outcome.result.tokens,
        "seconds": outcome.result.seconds,
        "stopped_early": outcome.result.status == "early_stopped",
        "train_loss": outcome.result.train_loss,
        "precision": outcome.result.precision,
    }


def before_and_after(result: TrainingResult) -> dict[str, dict[str, Any]]:
    """The held-out metrics of the base, and those of the weights that were kept."""
    by_step = {evaluation["step"]: evaluation for evaluation in result.evaluations}
    return {"before": by_step.get(0, {}), "after": by_step.get(result.best_step, {})}


def sample_conversations(prompts: Sequence[str]) -> list[list[Message]]:
    return [[{"role": "user", "content": prompt}] for prompt in prompts]


def _train(spec: Spec, options: RunOptions, values: Hyperparameters, rows: list[Any], held_out: list[Any]) -> Any:
    common = {"options": options, "hyperparameters": values, "held_out": held_out}
    match spec.method:
        case Method.LORA_SFT | Method.FULL_SFT:
            return train_sft(spec.base, rows, method=spec.method, adapter=spec.adapter, **common)
        case Method.DPO | Method.KTO:
            return train_preferences(spec.base, rows, adapter=spec.adapter, **common)
        case Method.CLASSIFICATION:
            return train_classifier(spec.base, rows, **common)
        case Method.MASKED_LM:
            return train_masked_lm(spec.base, rows, **common)


def _origin(outcome: Any) -> dict[str, Any]:
    origin = json.loads((outcome.folders[MERGED] / MANIFEST).read_text())["origin"]
    return {"packages": origin["packages"], "base_fingerprint": origin["base_fingerprint"]}


def _read_conversation(content: Content) -> list[Message]:
    return list(content["messages"])


def _read_pair(content: Content) -> PreferencePair:
    chosen, rejected = list(content["chosen"]), list(content["rejected"])
    # What both answers have in common before they part belongs to the prompt.
    if chosen[:-1] != rejected[:-1]:
        raise ConversationError("The two answers differ before their last message; only that one can be compared.")
    return PreferencePair([*content["prompt"], *chosen[:-1]], chosen[-1]["content"], rejected[-1]["content"])


def _read_rated(content: Content) -> RatedAnswer:
    completion = list(content["completion"])
    prompt = [*content["prompt"], *completion[:-1]]
    return RatedAnswer(prompt, completion[-1]["content"], bool(content["label"]))


def _read_labelled(content: Content) -> LabelledText:
    return LabelledText(content["text"], content["label"])


def _read_text(content: Content) -> str:
    return content["text"]


READERS: dict[Method, Callable[[Content], Any]] = {
    Method.LORA_SFT: _read_conversation,
    Method.FULL_SFT: _read_conversation,
    Method.DPO: _read_pair,
    Method.KTO: _read_rated,
    Method.CLASSIFICATION: _read_labelled,
    Method.MASKED_LM: _read_text,
}
