"""Times, arguments and troubles as operators read them."""

from __future__ import annotations

from datetime import datetime

from django import template

from delivery.models import Job
from delivery.redaction import redact_text

register = template.Library()

UNITS = ((172_800, 86_400, "days"), (7_200, 3_600, "h"), (120, 60, "min"), (1, 1, "s"))


@register.filter
def in_words(seconds: float | None) -> str:
    """A duration in its fitting unit: `40 ms`, `35 s`, `4 min`, `3 h`, `5 days`; empty for None."""
    if seconds is None:
        return ""
    for least, unit, name in UNITS:
        if seconds >= least:
            return f"{int(seconds // unit)} {name}"
    return f"{round(max(0.0, seconds) * 1000)} ms"


@register.filter
def ago(at: datetime | None, now: datetime) -> str:
    """`35 s ago`; empty for None, as a filter answers to what is not there."""
    if at is None:
        return ""
    seconds = int((now - at).total_seconds())
    return f"{in_words(seconds)} ago" if seconds >= 1 else "now"


@register.filter
def ahead(at: datetime | None, now: datetime) -> str:
    """`in 4 min`; `overdue for 35 s` where it has passed; empty for None."""
    if at is None:
        return ""
    seconds = int((at - now).total_seconds())
    if seconds < 0:
        return f"overdue for {in_words(-seconds)}"
    return f"in {in_words(seconds)}" if seconds else "now"


@register.filter
def arguments(job: Job) -> str:
    """The job's arguments, without addresses and tokens, by name: `id=3, slot=1`."""
    if not isinstance(job.args, dict):  # written by other hands: its job is dead, and must be seen
        return redact_text(str(job.args))
    return redact_text(", ".join(f"{name}={value}" for name, value in sorted(job.args.items())))


@register.filter
def troubles(job: Job) -> str:
    """What went wrong in a row: `2 x EdgeError, 1 x OperationalError`."""
    met = ((name, int(trouble["count"])) for name, trouble in job.troubles.items())
    return ", ".join(f"{count} × {name}" for name, count in met if count)


@register.filter
def redacted(text: str) -> str:
    return redact_text(text)
