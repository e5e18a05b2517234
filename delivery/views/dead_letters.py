"""Dead letters in the operators' hands: tried again or given up for good, one or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from django.contrib import messages
from django.http import HttpRequest

from delivery import queue, release
from delivery.models import Job
from newsletter.models import Refused

NAMED = 5  # refusals in a message each; the rest is a number


@dataclass
class Handled:
    """What became of them: in words, one for each job."""

    done: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def retry(rows: Iterable[Job], *, actor: str) -> Handled:
    """dead -> queued, wherever that still makes sense."""
    return _each(rows, lambda row: release.retry(row, actor=actor))


def discard(rows: Iterable[Job], *, actor: str) -> Handled:
    """dead -> discarded."""

    def give_up(row: Job) -> str:
        if not queue.discard_dead(row, actor=actor):
            raise Refused(f"{row.key} is not dead any more: nothing to discard.")
        return f"{row.key} was discarded."

    return _each(rows, give_up)


# What the buttons and the actions are called -> what they do.
ACTS: dict[str, Callable[..., Handled]] = {"retry": retry, "discard": discard}


def tell(request: HttpRequest, handled: Handled) -> None:
    """How many were done, and why others were not."""
    if len(handled.done) == 1:
        messages.success(request, handled.done[0])
    elif handled.done:
        messages.success(request, f"Done for {len(handled.done)} jobs.")
    for reason in handled.refused[:NAMED]:
        messages.error(request, reason)
    more = len(handled.refused) - NAMED
    if more > 0:
        messages.error(request, f"The same for {more} more: they are as they were.")


def _each(rows: Iterable[Job], act: Callable[[Job], str]) -> Handled:
    handled = Handled()
    for row in rows:
        try:
            handled.done.append(act(row))
        except Refused as refusal:
            handled.refused.append(str(refusal))
    return handled
