"""The one error type that the edges raise towards the rooms above them."""

from __future__ import annotations


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
