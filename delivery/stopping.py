"""Whether this host's `work` was asked to stop: one byte that all its processes share.

No lock guards it: a process that is killed while it holds one would hang the others.
"""

from __future__ import annotations

import mmap

_flag = mmap.mmap(-1, 1)  # anonymous and shared: inherited through fork


def stopping() -> bool:
    return _flag[0] == 1


def stop() -> None:
    _flag[0] = 1


def reset() -> None:
    _flag[0] = 0
