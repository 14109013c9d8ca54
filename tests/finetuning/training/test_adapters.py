"""An adapter does in bfloat16 what it does in float32, and is peft's own in every other respect."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners import lora
from torch import nn

from finetuning.training.adapters import OneRoundingLinear, rounding_once

INPUTS, OUTPUTS, ROWS = 64, 96, 512


def config() -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, target_modules=["up", "down"])


class TwoLayers(nn.Module):
    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(INPUTS, OUTPUTS, bias=bias), nn.Linear(OUTPUTS, INPUTS, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.nn.functional.silu(self.up(x)))


def adapted(config: LoraConfig, *, bias: bool = False, strength: float = 0.0003) -> PeftModel:
    """The same weights every time; `strength` is how far training has moved the adapter."""
    torch.manual_seed(7)
    model = get_peft_model(TwoLayers(bias=bias), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=strength)
    return model


def share_seen(model: PeftModel, x: torch.Tensor) -> float:
    """How much of the adapter's effect, as float32 has it, is left under bfloat16; 1: all of it."""
    with torch.no_grad():
        with model.disable_adapter():
            exact_base = model(x).double()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                half_base = model(x).double()
        effect = model(x).double() - exact_base
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(x).double() - half_base
    return ((half * effect).sum() / (effect**2).sum()).item()


def test_small_effect_survives_bfloat16():
    x = torch.randn(ROWS, INPUTS)
    ours, pefts = adapted(rounding_once(config())), adapted(config())
    assert type(ours.base_model.model.up) is OneRoundingLinear
    assert type(pefts.base_model.model.up) is lora.Linear
    assert share_seen(ours, x) == pytest.approx(1, abs=0.05)
    assert share_seen(pefts, x) < 0.7  # else this is needed no longer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(ROWS, INPUTS), (2, 5, INPUTS)])
def test_result_and_gradients_are_pefts_in_float32(bias, shape):
    x = torch.randn(shape)
    found = []
    for model in (adapted(rounding_once(config()), bias=bias), adapted(config(), bias=bias)):
        result = model(x)
        result.square().mean().backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        found.append((result, grads))
    (ours, our_grads), (theirs, their_grads) = found
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(our_grads, their_grads)


def test_base_in_bfloat16_without_autocast_goes_pefts_way():
    """As frozen weights are stored beside an adapter in float32."""
    x = torch.randn(ROWS, INPUTS, dtype=torch.bfloat16)
    found = []
    for model in (adapted(rounding_once(config())), adapted(config())):
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
        found.append(model(x))
    assert torch.equal(*found)


def test_switched_off_and_merged_it_is_the_base():
    x = torch.randn(ROWS, INPUTS)
    model = adapted(rounding_once(config()))
    adapted_result = model(x)
    with model.disable_adapter():
        torch.testing.assert_close(model(x), _base_result(x))
    torch.testing.assert_close(model.merge_and_unload()(x), adapted_result)


def _base_result(x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(7)
    return TwoLayers(bias=False)(x)


def test_saved_adapter_is_read_by_peft_alone(tmp_path):
    x = torch.randn(ROWS, INPUTS)
    model = adapted(rounding_once(config()))
    model.save_pretrained(tmp_path)
    torch.manual_seed(7)
    read = PeftModel.from_pretrained(TwoLayers(bias=False), tmp_path)
    assert type(read.base_model.model.up) is lora.Linear
    torch.testing.assert_close(read(x), model(x))
