"""Plain attention computes what the fused kernel computes, and leaves to it what it does not do."""

from __future__ import annotations

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from finetuning.training import attention
from finetuning.training.attention import NAME, attend, use_short_rows
from tests.finetuning.training.builders import build_model, build_tokenizer


class Layer(torch.nn.Module):
    """What the kernels want to know of a layer."""

    def __init__(self, *, is_causal: bool = True, groups: int = 3) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.num_key_value_groups = groups


def inputs(tokens: int, *, keys: int | None = None) -> list[torch.Tensor]:
    """Six heads that share two heads of keys and values."""
    torch.manual_seed(tokens)
    shapes = ((2, 6, tokens, 8), (2, 2, keys or tokens, 8), (2, 2, keys or tokens, 8))
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def outcome(function, layer: Layer, tensors: list[torch.Tensor], **options) -> list[torch.Tensor]:
    """The output and the three gradients."""
    result = function(layer, *tensors, options.pop("attention_mask", None), scaling=0.3, **options)[0]
    weights = torch.arange(result.numel()).reshape(result.shape).sin()
    return [result, *torch.autograd.grad((result * weights).sum(), tensors)]


def assert_same(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    for left, right in zip(one, other, strict=True):
        assert torch.allclose(left, right, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 7, 33])
def test_short_rows_come_out_as_from_the_fused_kernel(tokens):
    tensors = inputs(tokens)
    assert_same(outcome(attend, Layer(), tensors), outcome(sdpa_attention_forward, Layer(), tensors))


@pytest.fixture
def kernel(monkeypatch):
    """Counts what is handed to the fused kernel."""
    calls = []

    def counted(*arguments, **options):
        calls.append(options)
        return sdpa_attention_forward(*arguments, **options)

    monkeypatch.setattr(attention, "sdpa_attention_forward", counted)
    return calls


def test_short_rows_do_without_the_kernel(kernel):
    outcome(attend, Layer(), inputs(33))
    assert kernel == []


@pytest.mark.parametrize(
    ("layer", "tensors", "options"),
    [
        (Layer(), inputs(attention.MAX_TOKENS + 1), {}),
        (Layer(), inputs(1, keys=9), {}),
        (Layer(is_causal=False), inputs(9), {}),
        (Layer(), inputs(9), {"is_causal": False}),
        (Layer(), inputs(9), {"attention_mask": torch.ones(2, 1, 9, 9, dtype=torch.bool).tril()}),
        (Layer(), inputs(9), {"position_bias": torch.ones(1, 6, 9, 9).tril()}),
    ],
    ids=["long", "one token after others", "both ways", "told both ways", "mask", "bias"],
)
def test_everything_else_goes_to_the_kernel(kernel, layer, tensors, options):
    ours = outcome(attend, layer, tensors, **dict(options))
    assert len(kernel) == 1
    assert_same(ours, outcome(sdpa_attention_forward, layer, tensors, **options))


def test_model_uses_it_and_gives_the_same_logits(kernel):
    model = build_model(build_tokenizer())
    ids = torch.arange(20)[None]
    before = model(ids).logits
    use_short_rows(model)
    assert model.config._attn_implementation == NAME
    assert torch.allclose(before, model(ids).logits, atol=1e-5)
    assert kernel == []


def test_padded_rows_are_masked_as_before(kernel):
    model = build_model(build_tokenizer())
    ids = torch.arange(20)[None].repeat(2, 1)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    before = model(ids, attention_mask=mask).logits
    use_short_rows(model)
    assert torch.allclose(before[mask.bool()], model(ids, attention_mask=mask).logits[mask.bool()], atol=1e-5)
    assert kernel


def test_model_that_attends_otherwise_is_left_alone():
    model = build_model(build_tokenizer())
    model.set_attn_implementation("eager")
    use_short_rows(model)
    assert model.config._attn_implementation == "eager"
