"""LoRA whose effect bfloat16 does not swallow: base and adapter are added before the result is rounded, not after.

peft rounds the base's result to bfloat16 and then adds the adapter's, which is lost wherever it is smaller than half a
step of that format: of weights of 0.0003, as they are after the first steps, 41 % of the effect, of 0.0001 75 %. One
product that begins with the adapter's result adds in float32 and rounds once, and is one pass over the result less.
Measured: docs/decisions/0008-one-rounding.md.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners import lora
from torch import nn


class OneRoundingLinear(lora.Linear):
    """peft's layer in all but its forward pass: what is saved and merged is the same."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """`x` [..., inputs] to [..., outputs]. Whatever is not one plain adapter in use goes peft's way."""
        name = self._plain_adapter()
        if name is None or args or kwargs:
            return super().forward(x, *args, **kwargs)
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        elif not x.dtype == self.base_layer.weight.dtype == self.lora_A[name].weight.dtype:
            return super().forward(x)
        inner = self.lora_A[name](self.lora_dropout[name](x)) * self.scaling[name]
        start = self.lora_B[name](inner)
        if self.base_layer.bias is not None:
            start = start + self.base_layer.bias
        result = torch.addmm(start.flatten(0, -2), x.flatten(0, -2), self.base_layer.weight.t())
        return result.unflatten(0, x.shape[:-1])

    def _plain_adapter(self) -> str | None:
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name = self.active_adapters[0]
        is_plain = name in self.lora_A and name not in self.lora_variant and not self.lora_bias[name]
        return name if is_plain and type(self.base_layer) is nn.Linear else None


def rounding_once(config: LoraConfig) -> LoraConfig:
    """The same config; models that get adapters by it add before they round."""
    config._register_custom_module({nn.Linear: OneRoundingLinear})
    return config
