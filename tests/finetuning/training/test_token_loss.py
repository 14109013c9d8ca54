"""Loss and gradients are those of the whole batch, whatever the padding, the split and the size of the head's work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from finetuning.training import token_loss
from finetuning.training.rendering import IGNORED, ChatRenderer
from finetuning.training.token_loss import CrossEntropy, collate, summed_loss, token_log_probabilities
from tests.finetuning.training.builders import build_model, build_tokenizer, code_words


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture
def model(tokenizer):
    return build_model(tokenizer)


@pytest.fixture(scope="module")
def sequences(tokenizer):
    renderer = ChatRenderer(tokenizer)
    return [renderer.render(messages)[0] for messages in code_words(4)]


def all_gradients(model) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten().clone() for parameter in model.parameters()])


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / one.norm()).item()


def gradients(model, batches, *, tokens: int) -> torch.Tensor:
    model.zero_grad()
    for batch in batches:
        (summed_loss(model, batch) / tokens).backward()
    return all_gradients(model)


def split(sequences, size: int):
    return [collate(sequences[at : at + size], pad_token_id=0) for at in range(0, len(sequences), size)]


def test_loss_is_that_of_full_logits_with_ignored_labels(model, sequences):
    labels = [torch.tensor(sequence.labels).long() for sequence in sequences]
    expected = sum(
        functional.cross_entropy(
            model(torch.tensor(s.input_ids[None])).logits[0, :-1], targets[1:], reduction="sum", ignore_index=IGNORED
        )
        for s, targets in zip(sequences, labels, strict=True)
    )
    assert torch.allclose(summed_loss(model, collate(sequences, pad_token_id=0)), expected, rtol=1e-5)


def test_one_batch_of_four_equals_four_batches_of_one(model, sequences):
    tokens = sum(sequence.trained_tokens for sequence in sequences)
    assert len({sequence.trained_tokens for sequence in sequences}) > 1  # else a mean of means would pass too
    one, four = (gradients(model, split(sequences, size), tokens=tokens) for size in (4, 1))
    assert distance(one, four) < 1e-4


def test_mean_of_means_would_give_other_gradients(model, sequences):
    """What the division by the tokens of the whole step prevents."""
    tokens = sum(sequence.trained_tokens for sequence in sequences)
    right = gradients(model, split(sequences, 4), tokens=tokens)
    model.zero_grad()
    for batch in split(sequences, 1):
        (summed_loss(model, batch) / len(batch.targets) / len(sequences)).backward()
    assert distance(right, all_gradients(model)) > 0.01


def test_what_the_padding_is_changes_nothing(model, sequences):
    losses = [summed_loss(model, collate(sequences, pad_token_id=pad)) for pad in (0, 7)]
    assert torch.equal(*losses)


def test_pad_token_that_is_the_stop_token_stays_a_target(tokenizer, sequences):
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    batch = collate(sequences, pad_token_id=tokenizer.pad_token_id)
    assert (batch.targets == tokenizer.eos_token_id).sum() == len(sequences)
    assert len(batch.targets) == sum(sequence.trained_tokens for sequence in sequences)


def test_head_works_on_trained_positions_only(model, sequences):
    seen = []
    model.lm_head.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape[1]))
    batch = collate(sequences, pad_token_id=0)
    summed_loss(model, batch)
    assert seen == [len(batch.targets)] and seen[0] < np.prod(batch.input_ids.shape)


def test_head_is_whole_again_afterwards(model, sequences):
    batch = collate(sequences, pad_token_id=0)
    summed_loss(model, batch)
    assert model(batch.input_ids).logits.shape[:2] == batch.input_ids.shape


def test_capping_behind_the_head_is_kept(tokenizer, sequences):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    values = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
    }
    config = Gemma2Config(**values, num_key_value_heads=1, vocab_size=len(tokenizer), final_logit_softcapping=0.05)
    model = Gemma2ForCausalLM(config).eval()
    batch = collate(sequences[:1], pad_token_id=0)
    logits = model(batch.input_ids).logits[:, :-1][batch.predicts]
    assert logits.abs().max() <= 0.05
    expected = functional.cross_entropy(logits, batch.targets, reduction="sum")
    assert torch.allclose(summed_loss(model, batch), expected, rtol=1e-5)


def test_log_probabilities_are_per_row(model, sequences):
    together = token_log_probabilities(model, collate(sequences, pad_token_id=0))
    alone = torch.cat([token_log_probabilities(model, collate([s], pad_token_id=0)) for s in sequences])
    assert torch.allclose(together, alone, rtol=1e-5)
    assert torch.allclose(-together.sum(), summed_loss(model, collate(sequences, pad_token_id=0)), rtol=1e-5)


@pytest.mark.parametrize("part_numbers", [1, 1000, 10**9])
def test_loss_and_gradient_are_those_of_the_whole_logits_however_they_are_parted(monkeypatch, part_numbers):
    monkeypatch.setitem(token_loss.PART_NUMBERS, "cpu", part_numbers)
    torch.manual_seed(0)
    logits = (torch.randn(37, 300) * 20).requires_grad_()
    targets = torch.randint(300, (37,))
    weights = torch.rand(37)
    expected = functional.cross_entropy(logits, targets, reduction="none")
    (wanted,) = torch.autograd.grad((expected * weights).sum(), logits)
    losses = CrossEntropy.apply(logits, targets)
    (gradient,) = torch.autograd.grad((losses * weights).sum(), logits)
    assert torch.allclose(losses, expected, atol=1e-4) and torch.allclose(gradient, wanted, atol=1e-6)


def test_loss_of_half_precision_is_computed_in_float32():
    torch.manual_seed(0)
    logits = (torch.randn(5, 300) * 20).to(torch.bfloat16).requires_grad_()
    targets = torch.randint(300, (5,))
    losses = CrossEntropy.apply(logits, targets)
    assert losses.dtype is torch.float32
    assert torch.allclose(losses, functional.cross_entropy(logits.float(), targets, reduction="none"), atol=1e-4)
    losses.sum().backward()
    assert logits.grad.dtype is torch.bfloat16


def test_no_second_copy_of_the_logits_is_kept():
    """PyTorch's own keeps their logarithms in float32 beside them."""
    kept = []
    logits = torch.randn(8, 300, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        CrossEntropy.apply(logits, torch.zeros(8, dtype=torch.int64)).sum()
    assert [tensor.dtype for tensor in kept if tensor.numel() >= logits.numel()] == [torch.bfloat16]
