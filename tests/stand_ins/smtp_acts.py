"""What the SMTP stand-in can do instead of its usual answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

FOREVER = 3600.0


@dataclass(frozen=True)
class Act:
    """What to do instead of the usual answer. ``reply`` None keeps the usual one."""

    reply: bytes | None = None
    wait: float = 0  # seconds before the reply; cut short when the server stops
    pace: float = 0  # seconds between its bytes
    drop: bool = False  # close after it
    reset: bool = False  # close with RST
    accepted: bool | None = None  # at the dot: what is recorded; None: what the reply says


def say(*lines: str) -> Act:
    """Answer with these lines as they are; several make a multi-line reply."""
    return Act("".join(f"{line}\r\n" for line in lines).encode())


def drop(*, reset: bool = False) -> Act:
    """Close without a word."""
    return Act(b"", drop=True, reset=reset, accepted=False)


def say_then_drop(text: str) -> Act:
    """Answer, then close: what a server does with its 421."""
    return replace(say(text), drop=True)


def accept_then_drop() -> Act:
    """At the dot: the copy is accepted, the reply is lost."""
    return Act(b"", drop=True, accepted=True)


def stall(seconds: float = FOREVER, *, accepted: bool | None = None) -> Act:
    """Give the usual answer only after so long."""
    return Act(wait=seconds, accepted=accepted)


def garbled(*, accepted: bool = False) -> Act:
    """Answer with bytes that are no reply."""
    return Act(b"\xff\xfe\x00 nonsense\r\n", accepted=accepted)


def long_line(code: int = 250, *, accepted: bool = False) -> Act:
    """Answer with a line of 9 kB."""
    return Act(b"%d " % code + b"x" * 9000 + b"\r\n", accepted=accepted)


def trickle(text: str, seconds: float = 1.0) -> Act:
    """Answer with one byte each so many seconds."""
    return replace(say(text), pace=seconds)
