"""What a dataset looks like: balance of its labels, lengths as a histogram, and what that warns of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from finetuning.formats.examples import ClassificationExample, Example, KtoExample, PreferenceExample, example_texts
from finetuning.formats.problems import Code, Problem, warn

DESIRABLE, UNDESIRABLE = "desirable", "undesirable"
LOPSIDED = 0.95  # of the rows with one label, or of the pairs with the longer answer chosen
LONGER = 0.8


def get_label(example: Example) -> str:
    """What to stratify and balance by; "" where examples have no labels."""
    if isinstance(example, ClassificationExample):
        return example.label
    if isinstance(example, KtoExample):
        return DESIRABLE if example.label else UNDESIRABLE
    return ""


def measure_length(example: Example) -> int:
    """In characters, until a tokenizer says more."""
    return sum(map(len, example_texts(example)))


@dataclass(frozen=True, slots=True)
class LabelBalance:
    counts: dict[str, int]  # the most frequent first
    total: int
    majority_share: float  # what always answering the most frequent label would reach
    warnings: list[Problem]


def measure_labels(labels: Iterable[str]) -> LabelBalance:
    counted = Counter(labels)
    counts = dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
    total = counted.total()
    share = max(counts.values(), default=0) / total if total else 0.0
    return LabelBalance(counts, total, share, _label_warnings(counts, share))


def _label_warnings(counts: dict[str, int], share: float) -> list[Problem]:
    if len(counts) == 1:
        return [warn(Code.ONE_CLASS, "All rows have the same label, so there is nothing to tell apart.")]
    warnings = []
    if share > LOPSIDED:
        warnings.append(warn(Code.LOPSIDED_LABELS, f"{share:.1%} of the rows have the same label."))
    rare = sum(count < 2 for count in counts.values())
    if rare:
        warnings.append(warn(Code.RARE_LABEL, f"Labels with a single row, which no held-out row can test: {rare}."))
    return warnings


@dataclass(frozen=True, slots=True)
class Bin:
    start: int
    end: int  # the first length that is no longer in it
    count: int


@dataclass(frozen=True, slots=True)
class LengthHistogram:
    count: int
    minimum: int
    maximum: int
    mean: float
    median: int
    p95: int
    p99: int
    bins: list[Bin]  # of equal width, without a gap


def measure_lengths(lengths: Iterable[int], *, max_bins: int = 20) -> LengthHistogram:
    """Of characters or tokens, whatever is given; all zero for no rows. Percentiles are lengths that occur."""
    counts = sorted(Counter(lengths).items())
    if not counts:
        return LengthHistogram(0, 0, 0, 0.0, 0, 0, 0, [])
    total = sum(count for _, count in counts)
    below = list(accumulate(count for _, count in counts))

    def percentile(percent: int) -> int:
        return next(length for (length, _), sums in zip(counts, below, strict=True) if sums * 100 >= percent * total)

    minimum, maximum = counts[0][0], counts[-1][0]
    width = -(-(maximum - minimum + 1) // max_bins)
    sizes = Counter[int]()
    for length, count in counts:
        sizes[(length - minimum) // width] += count
    bins = [Bin(minimum + width * n, minimum + width * (n + 1), sizes[n]) for n in range(max(sizes) + 1)]
    mean = sum(length * count for length, count in counts) / total
    return LengthHistogram(total, minimum, maximum, mean, percentile(50), percentile(95), percentile(99), bins)


def measure_length_bias(pairs: Iterable[PreferenceExample]) -> tuple[float, list[Problem]]:
    """The share of pairs whose chosen answer is the longer one; far from a half, length is what will be learned."""
    longer = total = 0
    for pair in pairs:
        chosen, rejected = (sum(len(message.content) for message in side) for side in (pair.chosen, pair.rejected))
        total += chosen != rejected
        longer += chosen > rejected
    share = longer / total if total else 0.5
    if 1 - LONGER <= share <= LONGER:
        return share, []
    which = "longer" if share > LONGER else "shorter"
    return share, [warn(Code.LENGTH_BIAS, f"The {which} answer is chosen in most pairs; that is what will be learned.")]
