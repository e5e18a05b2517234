"""The patterns of a newsletter's blog: where a post is written, and where it is read."""

from __future__ import annotations

import datetime
import re

from django.core.exceptions import ValidationError

PLACEHOLDERS = ("slug", "date", "year", "month", "day")
SAMPLE_DAY = datetime.date(2026, 11, 23)


def expand(pattern: str, *, slug: str, date: datetime.date) -> str:
    """Fill {slug}, {date} (2026-11-23), {year}, {month}, {day} in a path or blog URL pattern.

    Raises ValueError for an unknown placeholder or a brace that belongs to none.
    """
    year, month, day = date.isoformat()[:10].split("-")
    values = {
        "slug": slug,
        "date": f"{year}-{month}-{day}",
        "year": year,
        "month": month,
        "day": day,
    }
    # Odd pieces are the names in braces, even ones the text between them.
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    if any(brace in text for text in pieces[::2] for brace in "{}"):
        raise ValueError(f"the pattern {pattern!r} has a stray brace: {_known()}")
    for name in pieces[1::2]:
        if name not in values:
            raise ValueError(f"the pattern {pattern!r} has an unknown {{{name}}}: {_known()}")
    pieces[1::2] = [values[name] for name in pieces[1::2]]
    return "".join(pieces)


def check_pattern(pattern: str) -> None:
    """A validator: refuse what `expand` would refuse on Monday."""
    try:
        sample = expand(pattern, slug="slug", date=SAMPLE_DAY)
    except ValueError as error:
        raise ValidationError(str(error)) from None
    if sample == expand(pattern, slug="another", date=SAMPLE_DAY + datetime.timedelta(days=40)):
        raise ValidationError(f"Every issue would have the same one: {_known()}.")


def check_path_pattern(pattern: str) -> None:
    """A validator: a path in the blog's repository or folder, relative and without detours."""
    if pattern.startswith("/") or {"", ".", ".."} & set(pattern.split("/")):
        raise ValidationError("Takes a relative path such as content/posts/{date}-{slug}.md.")


def _known() -> str:
    return "the known placeholders are " + ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
