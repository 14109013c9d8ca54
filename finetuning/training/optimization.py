"""The optimizer and the learning rate of any step. The rate is a function of the step, so nothing of it is stored."""

from __future__ import annotations

import math

import torch
from torch import nn

from finetuning.training.hyperparameters import Hyperparameters


def build_optimizer(model: nn.Module, hyperparameters: Hyperparameters) -> torch.optim.Optimizer:
    """AdamW over what is trained; biases and norms (vectors) are not decayed."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": hyperparameters.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=hyperparameters.learning_rate,
        betas=(hyperparameters.adam_beta1, hyperparameters.adam_beta2),
        eps=hyperparameters.adam_epsilon,
        fused=True,
    )


def learning_rate_at(step: int, *, total_steps: int, hyperparameters: Hyperparameters) -> float:
    """For the step counted from 0: linear warm-up, then down to 0 by cosine or line, or constant."""
    warmup = warmup_steps(total_steps, hyperparameters)
    if step < warmup:
        return hyperparameters.learning_rate * (step + 1) / warmup
    if hyperparameters.lr_scheduler_type == "constant":
        return hyperparameters.learning_rate
    progress = (step - warmup) / max(1, total_steps - warmup)
    share = (1 + math.cos(math.pi * progress)) / 2 if hyperparameters.lr_scheduler_type == "cosine" else 1 - progress
    return hyperparameters.learning_rate * share


def warmup_steps(total_steps: int, hyperparameters: Hyperparameters) -> int:
    """A value below 1 is a share of all steps, as in transformers."""
    asked = hyperparameters.warmup_steps
    return math.ceil(asked * total_steps) if asked < 1 else min(int(asked), total_steps)
