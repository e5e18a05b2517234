"""The one error type that the edges raise towards the rooms above them, and what is raised in their stead."""

from __future__ import annotations

from datetime import datetime


class EdgeError(Exception):
    """Another system did not do what was asked.

    ``message`` is shown to operators: it says what is wrong, where, and what to do, and holds no
    address, token or secret. ``permanent`` says that trying again without a change is of no use.
    ``retry_after`` is what the other side asked for, in seconds.
    """

    def __init__(
        self, message: str, *, permanent: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.permanent = permanent
        self.retry_after = retry_after


class BreakerOpen(EdgeError):
    """The service was not asked: its circuit breaker is open.

    The work waits until ``until`` (aware), and no attempt of it is spent.
    """

    def __init__(self, name: str, until: datetime, reason: str) -> None:
        super().__init__(
            f"{name} does not answer ({reason}): asked again after {until:%H:%M:%S} UTC"
        )
        self.name = name
        self.until = until
        self.reason = reason


class Busy(EdgeError):
    """Somebody else of ours is at it just now: worth another look in a moment."""


class ChannelTrouble(EdgeError):
    """The mail server takes nothing just now; no recipient's attempt was spent."""
