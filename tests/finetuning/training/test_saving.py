"""What is stored is what was trained, as far as the format can hold it."""

from __future__ import annotations

import torch
from torch import nn

from finetuning.training.saving import store_in


def layer(value: float, size: int = 400) -> nn.Linear:
    model = nn.Linear(size, size, bias=False)
    model.weight.data[:] = value
    return model


def test_small_changes_survive_bf16_on_average():
    """The step of bf16 at 1 is 1/128; rounded to the nearest, a tenth of it would be gone."""
    stored = store_in(layer(1 + 0.1 / 128), torch.bfloat16).weight.float()
    assert set(stored.unique().tolist()) == {1.0, 1 + 1 / 128}
    assert abs(stored.mean().item() - (1 + 0.1 / 128)) < 0.01 / 128


def test_weight_that_bf16_can_hold_stays_what_it_was():
    weights = torch.randn(400, 400).bfloat16()
    model = layer(0.0)
    model.weight.data = weights.float()
    assert torch.equal(store_in(model, torch.bfloat16).weight, weights)


def test_storing_twice_gives_the_same():
    once, again = (store_in(layer(0.3), torch.bfloat16).weight for _ in range(2))
    assert torch.equal(once, again)


def test_float32_is_stored_as_it_is():
    assert (store_in(layer(0.3), torch.float32).weight == 0.3).all()
