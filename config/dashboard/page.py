"""What the dashboard's template shows: tiles, and charts in the form that unfold's Chart.js reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.translation import ngettext

from config.dashboard.figures import Figures, Now, get_figures, read_now

# Told apart by lightness, too: the first is the accent, the others keep a distance in grey.
COLORS = ("var(--color-primary-600)", "#d08a1d", "#5b6fb5", "#b4534b", "#7a8794", "#3f9ab5")
MANY_MODELS = len(COLORS)
# Legible on light and on dark.
TICKS = {"color": "#8792a2"}
LEGEND = {"display": True, "position": "bottom", "align": "start", "labels": {**TICKS, "boxWidth": 12}}


@dataclass(frozen=True)
class Tile:
    title: str
    value: str
    note: str
    link: str = ""
    is_urgent: bool = False


@dataclass(frozen=True)
class Chart:
    """`data` and `options` are JSON for Chart.js; `table` says the same to whoever does not see it."""

    title: str
    kind: str
    data: str
    table: dict[str, Any]
    options: str = "{}"
    note: str = ""
    is_empty: bool = field(default=False)


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """For unfold's DASHBOARD_CALLBACK. Figures of everybody are for admins only."""
    if request.user.is_superuser:
        figures, now = get_figures(), read_now()
        context |= {"title": "Overview", "now": now}
        context |= {"tiles": make_tiles(figures, now), "charts": make_charts(figures)}
    return context


def make_tiles(figures: Figures, now: Now) -> list[Tile]:
    rated = figures.good_ratings + figures.bad_ratings
    waiting = ngettext("%d person waits for approval", "%d people wait for approval", now.waiting_people)
    people = waiting % now.waiting_people if now.waiting_people else f"of {figures.people}; nobody waits for approval"
    replies, failed = sum(figures.replies), sum(figures.failed)
    return [
        Tile(
            "People active this week",
            f"{figures.active_people:,}",
            people,
            reverse("admin:accounts_user_changelist"),
            is_urgent=bool(now.waiting_people),
        ),
        Tile("Replies in 14 days", f"{replies:,}", f"{failed:,} failed or were interrupted"),
        Tile("Tokens in 14 days", f"{sum(map(sum, figures.tokens.values())):,}", "read and written"),
        Tile("First token", f"{figures.first_token_ms:,} ms" if figures.first_tokens else "–", "median of all models"),
        Tile(
            "Rated good",
            f"{figures.good_ratings / rated:.0%}" if rated else "–",
            f"of {rated:,} ratings in 14 days",
        ),
        Tile("Training", _training_value(now), _training_note(now), is_urgent=bool(now.failed_this_week)),
        Tile("Examples to review", f"{now.to_review:,}", "in all datasets"),
        Tile("Storage", filesizeformat(sum(figures.storage.values())), _largest(figures.storage)),
    ]


def _training_value(now: Now) -> str:
    if now.is_paused:
        return "Paused"
    return f"{len(now.running)} running" if now.running else "Idle"


def _training_note(now: Now) -> str:
    parts = [f"{now.queued} waiting", f"{now.scheduled} scheduled", f"{now.trained_hours:.1f} h this week"]
    if now.failed_this_week:
        parts.append(f"{now.failed_this_week} failed")
    return ", ".join(parts)


def _largest(storage: dict[str, int]) -> str:
    name, size = max(storage.items(), key=lambda item: item[1])
    return f"most of it {name.lower()}: {filesizeformat(size)}" if size else "nothing stored yet"


def make_charts(figures: Figures) -> list[Chart]:
    days = [f"{day:%-d %b}" for day in figures.days]
    complete = [replies - failed for replies, failed in zip(figures.replies, figures.failed, strict=True)]
    first = figures.first_tokens[:MANY_MODELS]
    stored = {name: round(size / 1024**2, 1) for name, size in figures.storage.items()}
    return [
        _chart("Replies a day", "bar", days, {"answered": complete, "failed": figures.failed}, stacked=True),
        _chart("Tokens a day by model", "line", days, _most_used(figures.tokens)),
        _chart(
            "First token by model",
            "bar",
            [times.model for times in first],
            {"median": [times.median_ms for times in first], "95 %": [times.p95_ms for times in first]},
            note="Milliseconds from question to first token, as the server measured them.",
            is_lying=True,
        ),
        _chart(
            "Why replies failed",
            "bar",
            list(figures.failures),
            {"replies": list(figures.failures.values())},
            is_lying=True,
        ),
        _chart("Training a day", "bar", days, {"minutes": figures.training_minutes}, note="Minutes of ended jobs."),
        _chart(
            "Storage",
            "bar",
            list(stored),
            {"MB": list(stored.values())},
            note="Megabytes on this machine.",
            is_lying=True,
        ),
    ]


def _most_used(tokens: dict[str, list[int]]) -> dict[str, list[int]]:
    """As many lines as there are colours; the rest together."""
    names = list(tokens)
    kept = {name: tokens[name] for name in names[:MANY_MODELS]}
    if len(names) > MANY_MODELS:
        last = names[MANY_MODELS - 1]
        del kept[last]
        rest = [tokens[name] for name in names[MANY_MODELS - 1 :]]
        kept["others"] = [sum(values) for values in zip(*rest, strict=True)]
    return kept


def _chart(
    title: str,
    kind: str,
    labels: list[str],
    series: dict[str, Sequence[float]],
    *,
    stacked: bool = False,
    is_lying: bool = False,
    note: str = "",
) -> Chart:
    """Lying bars leave room for long names."""
    colours = dict(zip(series, COLORS, strict=False))
    datasets = [
        {
            "label": name,
            "data": list(values),
            "borderColor": colours[name],
            "backgroundColor": colours[name],
            "displayYAxis": True,
            "maxTicksXLimit": 7,
        }
        for name, values in series.items()
    ]
    options = {
        "responsive": True,
        "maintainAspectRatio": False,
        "animation": False,
        "maxBarThickness": 28,
        "indexAxis": "y" if is_lying else "x",
        "datasets": {"line": {"borderWidth": 2, "pointStyle": False}, "bar": {"borderRadius": 4}},
        "plugins": {"legend": LEGEND if len(series) > 1 else {"display": False}},
        "scales": {axis: {"stacked": stacked, "ticks": TICKS} for axis in ("x", "y")},
    }
    rows = [[label, *(f"{values[place]:,}" for values in series.values())] for place, label in enumerate(labels)]
    return Chart(
        title=title,
        kind=kind,
        data=json.dumps({"labels": labels, "datasets": datasets}),
        options=json.dumps(options),
        table={"headers": ["", *series], "rows": rows},
        note=note,
        is_empty=not any(any(values) for values in series.values()),
    )
