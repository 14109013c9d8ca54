"""Each method by name: what a dataset's rows become, and which function trains on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from finetuning.training.classification import LabelledText, PreparedClassifier, prepare_classifier, train_classifier
from finetuning.training.errors import ConversationError, DataError
from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.labels import Excluded
from finetuning.training.loop import TrainingResult
from finetuning.training.masked_lm import PreparedMaskedLm, prepare_masked_lm, train_masked_lm
from finetuning.training.memory import explained
from finetuning.training.preferences import (
    PreferencePair,
    PreparedPreferences,
    RatedAnswer,
    prepare_preferences,
    train_preferences,
)
from finetuning.training.rendering import Message
from finetuning.training.runs import MERGED, RunOptions
from finetuning.training.saving import MANIFEST
from finetuning.training.sft import PreparedSft, prepare_sft, train_sft
from finetuning.training.specs import Row, Spec

Content = dict[str, Any]
ROLES = ("system", "user", "assistant")


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
    """For the last event; None for a stopped run, and beside the main process. Raises what `errors.py` names."""
    rows = spec.rows("train")
    values = spec.resolve(rows)
    train_items = read_examples(spec.method, rows).items
    held_out = read_examples(spec.method, spec.rows("validation")).items
    if not train_items:
        raise DataError(f"None of the {len(rows)} rows can be trained on.")
    with explained(values):
        outcome = TRAIN[spec.method](spec.base, train_items, **_arguments(spec, options, values, held_out))
    if not outcome.folders:
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


def prepare(
    spec: Spec, options: RunOptions, values: Hyperparameters, rows: list[Any], held_out: list[Any]
) -> PreparedSft | PreparedPreferences | PreparedClassifier | PreparedMaskedLm:
    """What `train` would train, to be looked at. Raises what `errors.py` names."""
    arguments = _arguments(spec, options, values, held_out)
    return PREPARE[spec.method](spec.base, rows, **arguments)


def _arguments(spec: Spec, options: RunOptions, values: Hyperparameters, held_out: list[Any]) -> dict[str, Any]:
    common = {"options": options, "hyperparameters": values, "held_out": held_out}
    if spec.method in (Method.LORA_SFT, Method.FULL_SFT):
        return {**common, "method": spec.method, "adapter": spec.adapter}
    return {**common, "adapter": spec.adapter} if spec.method in (Method.DPO, Method.KTO) else common


def _origin(outcome: Any) -> dict[str, Any]:
    origin = json.loads((outcome.folders[MERGED] / MANIFEST).read_text())["origin"]
    return {"packages": origin["packages"], "base_fingerprint": origin["base_fingerprint"]}


def _read_conversation(content: Content) -> list[Message]:
    return _read_messages(content["messages"])


def _read_messages(messages: Any) -> list[Message]:
    for number, message in enumerate(messages, 1):
        if not (message["role"] in ROLES and isinstance(message["content"], str) and message["content"].strip()):
            raise ConversationError(f"Message {number} has an unknown role or no text.")
    return list(messages)


def _read_pair(content: Content) -> PreferencePair:
    chosen, rejected = _read_messages(content["chosen"]), _read_messages(content["rejected"])
    # What both answers have in common before they part belongs to the prompt.
    if chosen[:-1] != rejected[:-1]:
        raise ConversationError("The two answers differ before their last message; only that one can be compared.")
    return PreferencePair(
        [*_read_messages(content["prompt"]), *chosen[:-1]], chosen[-1]["content"], rejected[-1]["content"]
    )


def _read_rated(content: Content) -> RatedAnswer:
    completion = _read_messages(content["completion"])
    prompt = [*_read_messages(content["prompt"]), *completion[:-1]]
    return RatedAnswer(prompt, completion[-1]["content"], bool(content["label"]))


def _read_labelled(content: Content) -> LabelledText:
    return LabelledText(_read_text(content), str(content["label"]))


def _read_text(content: Content) -> str:
    if not content["text"].strip():
        raise ConversationError("The text is empty.")
    return content["text"]


READERS: dict[Method, Callable[[Content], Any]] = {
    Method.LORA_SFT: _read_conversation,
    Method.FULL_SFT: _read_conversation,
    Method.DPO: _read_pair,
    Method.KTO: _read_rated,
    Method.CLASSIFICATION: _read_labelled,
    Method.MASKED_LM: _read_text,
}
PREPARE: dict[Method, Callable[..., Any]] = {
    Method.LORA_SFT: prepare_sft,
    Method.FULL_SFT: prepare_sft,
    Method.DPO: prepare_preferences,
    Method.KTO: prepare_preferences,
    Method.CLASSIFICATION: prepare_classifier,
    Method.MASKED_LM: prepare_masked_lm,
}
TRAIN: dict[Method, Callable[..., Any]] = {
    Method.LORA_SFT: train_sft,
    Method.FULL_SFT: train_sft,
    Method.DPO: train_preferences,
    Method.KTO: train_preferences,
    Method.CLASSIFICATION: train_classifier,
    Method.MASKED_LM: train_masked_lm,
}
