"""Charts that the server draws: bars as SVG and progress elements, each with its figures in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT, GAP = 600, 132, 2


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    label: str
    count: int


@dataclass(frozen=True, slots=True)
class Histogram:
    bars: Sequence[Bar]
    summary: str
    first: int
    last: int
    median: int
    p95: int
    p99: int
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True, slots=True)
class Share:
    """One line of a balance: what, how many, how much of all (0 to 1)."""

    name: str
    count: int
    share: float
    tone: str = ""
    offset: float = 0.0  # where it begins in a stacked bar, in hundredths of the whole

    @property
    def percent(self) -> float:
        return self.share * 100


def draw_lengths(measured: Mapping[str, Any]) -> Histogram | None:
    """From the dict of a `LengthHistogram`; None when there are no rows."""
    bins = measured.get("bins") or []
    if not bins:
        return None
    tallest = max(item["count"] for item in bins) or 1
    step = WIDTH / len(bins)
    bars = []
    for number, item in enumerate(bins):
        # A bin with any row at all stays visible beside one with thousands.
        height = max(2.0, item["count"] / tallest * HEIGHT) if item["count"] else 0.0
        label = f"{item['start']:,} to {item['end'] - 1:,}"
        x, y = round(number * step, 2), round(HEIGHT - height, 2)
        bars.append(Bar(x, y, round(max(1.0, step - GAP), 2), round(height, 2), label, item["count"]))
    summary = (
        f"Half of the rows have at most {measured['median']:,} characters, 95\u00a0% at most {measured['p95']:,}; "
        f"the longest has {measured['maximum']:,}."
    )
    return Histogram(
        bars, summary, bins[0]["start"], bins[-1]["end"] - 1, measured["median"], measured["p95"], measured["p99"]
    )


def draw_shares(counts: Mapping[str, int], *, names: Mapping[str, str] | None = None, limit: int = 12) -> list[Share]:
    """The most frequent first, the rest together; empty when nothing was counted."""
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [Share((names or {}).get(name, name), count, count / total) for name, count in ordered[:limit] if total]
    rest = sum(count for _, count in ordered[limit:])
    if rest:
        shown.append(Share(f"{len(ordered) - limit} other labels", rest, rest / total))
    return shown


def stack_shares(parts: Sequence[tuple[str, int, str]]) -> list[Share]:
    """Name, count and tone of each part of one bar, in this order."""
    total = sum(count for _, count, _ in parts)
    shares, offset = [], 0.0
    for name, count, tone in parts:
        share = count / total if total else 0.0
        shares.append(Share(name, count, share, tone, round(offset * 100, 3)))
        offset += share
    return shares
