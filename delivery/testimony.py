"""Where a witness keeps its word: in a file, or behind an address that answers GET and PUT.

What is kept is small JSON: {"identity": "0f3c...", "releases": 12}.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from . import http
from .errors import EdgeError
from .http import Fetch, Page

LIMITS = http.Limits(total_seconds=10.0, max_bytes=10_000, max_redirects=0)  # a PUT follows none
GONE = (404, 410)
WHAT = "The witness"


@dataclass(frozen=True)
class Word:
    """Of which database, and how far it had come."""

    identity: str
    releases: int


def read(place: Path | str, fetch: Fetch) -> Word | None:
    """What is kept in a file or at a URL; None where there is nothing. Raises EdgeError where nobody can tell."""
    if isinstance(place, Path):
        return _read_file(place)
    page = fetch(place, limits=LIMITS)
    if page.status in GONE:
        return None
    http.expect_success(page, WHAT)
    return _parsed(page.body, page.host)


def write(place: Path | str, word: Word, fetch: Fetch, *, over: bool = False) -> None:
    """Keep it, so that a power loss does not take it back; a higher number of the same database stays.

    `over` replaces whatever stands there. Raises EdgeError.
    """
    if isinstance(place, Path):
        _write_file(place, word, over)
    elif over or _is_news(read(place, fetch), word):
        page: Page = fetch(place, method="PUT", json=asdict(word), limits=LIMITS)
        http.expect_success(page, WHAT)


def rehearse(place: Path | str) -> None:
    """Write beside a file's place, and leave nothing there; of a URL only a real word would tell. Raises EdgeError."""
    if isinstance(place, str):
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place.parent):
            pass
    except OSError as error:
        raise EdgeError(f"{WHAT} {place} cannot be written: {error.strerror}") from None


def _read_file(path: Path) -> Word | None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would keep us waiting
            raise EdgeError(f"{WHAT} {path} is no regular file: is WITNESS_URL right?")
        with path.open("rb") as file:
            return _parsed(file.read(LIMITS.max_bytes), str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EdgeError(f"{WHAT} {path} cannot be read: {error.strerror}") from None


def _write_file(path: Path, word: Word, over: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent) as folder:
            if over or _is_news(_read_file(path), word):
                _replace(path, json.dumps(asdict(word)).encode() + b"\n")
                os.fsync(folder)
    except OSError as error:
        raise EdgeError(f"{WHAT} {path} cannot be written: {error.strerror}") from None


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """One writer at a time on this host: a slow one must not put a lower number back."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield opened
    finally:
        os.close(opened)


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)  # of a process that died here, perhaps another user's
    with part.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _is_news(old: Word | None, new: Word) -> bool:
    return old is None or old.identity != new.identity or old.releases < new.releases


def _parsed(data: bytes, where: str) -> Word:
    try:
        said = json.loads(data)
        word = Word(said["identity"], said["releases"])
        if isinstance(word.identity, str) and type(word.releases) is int and word.releases >= 0:
            return word
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise EdgeError(
        f"{WHAT} {where} holds something that is no witness's word: is WITNESS_URL right?"
    )
