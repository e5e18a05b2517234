"""What the supervisor and the watchdog tell each other: a page of memory that both share.

No lock guards it: a process that is killed while it holds one would hang the other.
"""

from __future__ import annotations

import mmap
import struct
import time

from .models.job import Lane

_LANES = tuple(Lane.values)
_STAMP = struct.Struct("d")


class Board:
    """For each lane when it was started, and whether it hangs; and when the watchdog last looked. Monotonic seconds."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, 1024)  # anonymous and shared: inherited through fork

    def started(self, lane: str) -> float:
        return self._read(1 + _LANES.index(lane))

    def start(self, lane: str) -> None:
        self._write(1 + _LANES.index(lane))
        self._page[512 + _LANES.index(lane)] = 0

    def hangs(self, lane: str) -> bool:
        return self._page[512 + _LANES.index(lane)] == 1

    def report(self, lane: str) -> None:
        self._page[512 + _LANES.index(lane)] = 1

    def looked_at(self) -> float:
        return self._read(0)

    def look(self) -> None:
        self._write(0)

    def _read(self, place: int) -> float:
        return float(_STAMP.unpack_from(self._page, place * _STAMP.size)[0])

    def _write(self, place: int) -> None:
        _STAMP.pack_into(self._page, place * _STAMP.size, time.monotonic())
