"""How the pages about jobs write durations, sizes and measured figures; `static/js/job_figures.js` does it alike."""

from __future__ import annotations

from django import template

from finetuning.models import FineTuningJob

register = template.Library()
MISSING = "–"


@register.filter
def duration(seconds: float | None) -> str:
    """Two units at most: 45 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds is None:
        return MISSING
    whole = max(0, round(seconds))
    for size, name, smaller_size, smaller in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {name} {rest} {smaller}" if rest else f"{whole // size} {name}"
    return f"{whole} s"


@register.filter
def figure(value: float | None) -> str:
    """Four significant digits: 1.234, 0.0567, 2e-05, 1,234."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    if value and abs(value) < 0.001:
        return f"{value:.2e}".replace("e-0", "e-").replace(".00e", "e").replace("0e-", "e-")
    return f"{value:.4g}"


@register.filter
def percent(share: float | None) -> str:
    """Of a share from 0 to 1."""
    return MISSING if share is None else f"{share * 100:.1f} %"


@register.filter
def bytes_of(size: float | None) -> str:
    if size is None:
        return MISSING
    amount = float(size)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


@register.filter
def titled(job: FineTuningJob) -> str:
    return job.name or job.target
