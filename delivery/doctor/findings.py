"""One line of what the doctor has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "wrong"]


@dataclass(frozen=True)
class Finding:
    """`said` is what was seen, `todo` what to do about it; neither holds a secret or an e-mail address."""

    level: Level
    subject: str
    said: str
    todo: str = ""


def ok(subject: str, said: str) -> Finding:
    return Finding("ok", subject, said)


def warn(subject: str, said: str, todo: str) -> Finding:
    return Finding("warn", subject, said, todo)


def wrong(subject: str, said: str, todo: str) -> Finding:
    return Finding("wrong", subject, said, todo)
