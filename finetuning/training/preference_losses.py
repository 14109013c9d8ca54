"""The losses of DPO and KTO as plain functions of log probabilities [rows], and what is measured beside them."""

from __future__ import annotations

import torch
from torch.nn import functional


def dpo_losses(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    *,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    beta: float,
) -> torch.Tensor:
    """One loss for each pair. Source: Rafailov et al. 2023, equation 7."""
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -functional.logsigmoid(beta * margin)


def kto_losses(
    answered: torch.Tensor,
    *,
    reference: torch.Tensor,
    is_desirable: torch.Tensor,
    kl: torch.Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> torch.Tensor:
    """One loss for each row; `kl` (one number, at least 0) is how far the model is from its reference on the whole.

    Source: Ethayarajh et al. 2024, equation 8.
    """
    reward = beta * (answered - reference - kl)
    desirable = desirable_weight * (1 - torch.sigmoid(reward))
    undesirable = undesirable_weight * (1 - torch.sigmoid(-reward))
    return torch.where(is_desirable, desirable, undesirable)
