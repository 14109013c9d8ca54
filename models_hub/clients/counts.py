"""The numbers in a provider's answer: taken when they make sense, refused when they cannot be true."""

from __future__ import annotations

import math

from models_hub.base import LabelScore, ProviderBadResponseError, Usage

# Far above any window there is, and what every database's integer still holds.
MOST_TOKENS = 2**31 - 1
# Scores are probabilities; a sum of 32-bit floats may end a hair above 1.
ROUNDING = 1e-3


def read_usage(usage: object) -> Usage | None:
    """None where nothing was counted. Raises ProviderBadResponseError for counts that cannot be."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (isinstance(prompt, int) and isinstance(completion, int | None)):
        return None
    counts = (prompt, completion or 0)
    if any(isinstance(count, bool) or not 0 <= count <= MOST_TOKENS for count in counts):
        raise ProviderBadResponseError("The provider counts tokens in a way that cannot be.", detail=str(counts)[:100])
    return Usage(*counts)


def read_scores(row: object) -> list[LabelScore]:
    """Best first. Raises ProviderBadResponseError, also for a score that is no probability."""
    try:
        scores = [LabelScore(str(item["label"]), float(item["score"])) for item in row]  # type: ignore[attr-defined]
    except (TypeError, KeyError, ValueError) as error:
        raise ProviderBadResponseError("The engine sent labels that make no sense.") from error
    if not all(math.isfinite(item.score) and 0 <= item.score <= 1 + ROUNDING for item in scores):
        raise ProviderBadResponseError("The engine sent scores that are no probabilities.")
    return sorted(scores, key=lambda score: -score.score)
