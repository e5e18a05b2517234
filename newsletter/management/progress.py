"""How far a long command has come, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY = 5.0  # seconds between two lines


class Progress:
    """Called with (what is done with rows, rows so far): a line each EVERY seconds, with the rows a second."""

    def __init__(self, write: Callable[[str], object], every: float = EVERY) -> None:
        self.write = write
        self.every = every
        self.word = ""
        self.began = self.told = self.last = time.monotonic()

    def __call__(self, word: str, rows: int) -> None:
        now = time.monotonic()
        if word != self.word:
            self.word, self.began = word, self.last
        self.last = now
        if now - self.told >= self.every and now > self.began:
            self.write(f"{rows:,} rows {word}, {rows / (now - self.began):,.0f} a second")
            self.told = now
