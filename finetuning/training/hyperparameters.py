"""All hyperparameters of a run in one place, named as in transformers, peft and trl, with a default for each method."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any


class Method(StrEnum):
    LORA_SFT = "lora_sft"
    FULL_SFT = "full_sft"
    DPO = "dpo"
    KTO = "kto"
    CLASSIFICATION = "classification"
    MASKED_LM = "masked_lm"


SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = ("auto", "float32", "bfloat16")
AT_LEAST_ONE = (
    "num_train_epochs",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "lora_r",
    "lora_alpha",
)
NOT_NEGATIVE = (
    *("max_steps", "warmup_steps", "weight_decay", "eval_steps", "save_steps", "early_stopping_patience", "seed"),
    *("adam_epsilon", "desirable_weight", "undesirable_weight"),
)
# More cannot be meant, and neither a database column nor the machine could hold what would come of it.
MOST = {"num_train_epochs": 1_000, "seed": 2**32 - 1, "lora_r": 4_096, "lora_alpha": 65_536}
MOST_OF_OTHERS = 10**9
MAX_MODULES = 200
# What may differ between a run and its resumption: it changes when something is written, never what is computed.
FREE_ON_RESUME = frozenset({"save_steps", "save_seconds", "save_total_limit"})


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Raises `ValueError` with a sentence for values that cannot be meant.

    `max_steps` 0 means "by epochs"; `eval_steps` 0 once an epoch; `save_steps` 0 every `save_seconds`;
    `warmup_steps` below 1 is a share of all steps; `early_stopping_patience` counts evaluations, 0 turns it off;
    `max_length` None takes the data's 99th percentile; `precision` auto measures.
    """

    learning_rate: float = 2e-4
    num_train_epochs: int = 3
    max_steps: int = 0
    per_device_train_batch_size: int = 4
    per_device_eval_batch_size: int = 8
    gradient_accumulation_steps: int = 4
    max_length: int | None = None
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 0.03
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    seed: int = 42
    eval_steps: int = 0
    early_stopping_patience: int = 3
    save_steps: int = 0
    save_seconds: float = 120.0
    save_total_limit: int = 2
    gradient_checkpointing: bool = False
    precision: str = "auto"
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    mlm_probability: float = 0.15

    def __post_init__(self) -> None:
        for field in fields(self):
            self._check_type(field.name, str(field.type))
        for name in AT_LEAST_ONE:
            self._require(getattr(self, name) >= 1, f"{name} must be at least 1.")
        for name in NOT_NEGATIVE:
            self._require(getattr(self, name) >= 0, f"{name} must not be negative.")
        for name in ("learning_rate", "max_grad_norm", "beta", "save_seconds", "save_total_limit"):
            self._require(getattr(self, name) > 0, f"{name} must be greater than 0.")
        self._require(0 <= self.lora_dropout < 1, "lora_dropout must be at least 0 and below 1.")
        self._require(0 < self.mlm_probability < 1, "mlm_probability must be between 0 and 1.")
        for name in ("adam_beta1", "adam_beta2"):
            self._require(0 <= getattr(self, name) < 1, f"{name} must be at least 0 and below 1.")
        self._require(self.max_length is None or self.max_length >= 8, "max_length must be at least 8.")
        self._require(self.lr_scheduler_type in SCHEDULES, f"lr_scheduler_type must be one of {', '.join(SCHEDULES)}.")
        self._require(self.precision in PRECISIONS, f"precision must be one of {', '.join(PRECISIONS)}.")

    @property
    def effective_batch_size(self) -> int:
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Hyperparameters:
        """Raises `ValueError` for a name that is not known: a typing error must not train with a default."""
        unknown = sorted(values.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"Unknown hyperparameters: {', '.join(name[:50] for name in unknown[:5])}.")
        modules = values.get("target_modules")
        return cls(**{**values, "target_modules": tuple(modules)} if isinstance(modules, list) else values)

    @classmethod
    def for_method(cls, method: Method, *, rows: int, **chosen: Any) -> Hyperparameters:
        """The method's defaults for so many training rows, with `chosen` on top."""
        return cls.from_dict({**_defaults(method, rows), **chosen})

    def for_less_memory(self, *, is_evaluation: bool = False) -> dict[str, Any]:
        """What to change after running out of memory: the same effective batch in smaller pieces, then shorter rows.

        `is_evaluation`: it is known to have happened without gradients, where the batch of evaluations alone counts.
        """
        half = self.per_device_eval_batch_size // 2
        evaluation = {"per_device_eval_batch_size": half} if half else {}
        if is_evaluation:
            return evaluation or self._shorter_rows()
        return {**self._for_less_training_memory(), **evaluation}

    def _for_less_training_memory(self) -> dict[str, Any]:
        if self.per_device_train_batch_size > 1:
            half = self.per_device_train_batch_size // 2
            return {
                "per_device_train_batch_size": half,
                "gradient_accumulation_steps": -(-self.effective_batch_size // half),
            }
        return self._shorter_rows() if self.gradient_checkpointing else {"gradient_checkpointing": True}

    def _shorter_rows(self) -> dict[str, Any]:
        return {"max_length": max(8, self.max_length // 2)} if self.max_length else {}

    def _check_type(self, name: str, wanted: str) -> None:
        """They come from bodies and files as well: what is no number there would fail hours later, or never."""
        value = getattr(self, name)
        if name == "target_modules":
            names = (value,) if isinstance(value, str) else value
            is_meant = isinstance(names, tuple) and 0 < len(names) <= MAX_MODULES
            is_meant = is_meant and all(isinstance(item, str) and 0 < len(item) <= MAX_MODULES for item in names)
            self._require(is_meant, f"{name} must be a name, or a list of at most {MAX_MODULES} short names.")
        elif wanted == "bool":
            self._require(isinstance(value, bool), f"{name} must be true or false.")
        elif wanted == "str":
            self._require(isinstance(value, str), f"{name} must be a text.")
        elif value is not None or "None" not in wanted:
            self._check_number(name, value, is_whole=wanted.startswith("int"))

    def _check_number(self, name: str, value: Any, *, is_whole: bool) -> None:
        is_number = isinstance(value, int if is_whole else int | float) and not isinstance(value, bool)
        self._require(is_number, f"{name} must be a {'whole ' if is_whole else ''}number.")
        most = MOST.get(name, MOST_OF_OTHERS)
        self._require(math.isfinite(value) and value <= most, f"{name} must be at most {most:,}.")

    @staticmethod
    def _require(condition: bool, sentence: str) -> None:
        if not condition:
            raise ValueError(sentence)


def kto_weights(desirable: int, undesirable: int) -> dict[str, float]:
    """Weights with which good and bad answers count 1:1 to 4:3, as KTO's authors advise: the rarer kind is raised."""
    if not desirable or not undesirable:
        return {}
    ratio = desirable / undesirable
    return {
        "desirable_weight": round(max(1.0, 1 / ratio), 4),
        "undesirable_weight": round(max(1.0, ratio * 3 / 4), 4),
    }


def _defaults(method: Method, rows: int) -> dict[str, Any]:
    epochs = 3 if rows < 1_000 else 2 if rows < 10_000 else 1
    if method is Method.LORA_SFT:
        return {"num_train_epochs": epochs}
    if method is Method.FULL_SFT:
        return {"num_train_epochs": epochs, "learning_rate": 2e-5}
    if method in (Method.DPO, Method.KTO):
        return {"num_train_epochs": 1, "learning_rate": 5e-6, "warmup_steps": 0.1}
    encoder = {
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 64,
        "gradient_accumulation_steps": 1,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        "weight_decay": 0.01,
    }
    if method is Method.MASKED_LM:
        return {**encoder, "learning_rate": 1e-4}
    # A small data set needs larger steps to get anywhere in three epochs.
    return {**encoder, "learning_rate": 2e-5 if rows >= 20_000 else 5e-5 if rows >= 2_000 else 1e-4}
