"""Notices to the people who run a newsletter: one module for each way to tell them.

To add one: a module with `notify(webhook_url, notice, *, fetch)` that makes one request, raises
`EdgeError`, keeps the other side's limits of length and mentions nobody; then a line in
`delivery/notifying.py`. Nothing here tries again: a notice is told at most once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

# Controls, line and paragraph separators, bidirectional overrides, halves of surrogate pairs.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class Notice:
    """What happened. ``event`` is its short name, ``url`` where to look ("" for nowhere)."""

    event: str
    level: Literal["info", "warning", "error"]
    title: str
    lines: tuple[str, ...]
    url: str


def plain(text: str) -> str:
    """One line, with a space for each character that cannot be shown."""
    return UNPRINTABLE.sub(" ", text).strip()


def shortened(text: str, limit: int) -> str:
    """At most ``limit`` characters, an ellipsis where something was left out."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
