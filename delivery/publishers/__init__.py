"""What every publisher promises: the same bytes at the path mean done, a person's edit stops us.

To add one: a module with a class that satisfies ``Publisher``, raises nothing but ``EdgeError`` from
its two methods, and passes ``tests/delivery/test_publishers.py``.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from typing import Protocol

from delivery.errors import EdgeError

SEGMENT_BYTES = 255  # what ext4, APFS and NTFS take for one name


@dataclass(frozen=True)
class Post:
    """A file to publish: where (``check_path`` holds), its bytes, and the commit message."""

    path: str
    data: bytes
    message: str


@dataclass(frozen=True)
class Published:
    """What stands at the path now: git's blob sha (40 hex digits), and whether this call wrote it.

    ``url`` is the file's own page where the publisher has one, not the blog's page.
    """

    sha: str
    changed: bool
    url: str = ""


class Publisher(Protocol):
    """Puts one file where the blog is built from, and takes it away again."""

    def publish(self, post: Post, *, ours: str) -> Published:
        """Make ``post`` stand at its path. ``ours``: the blob sha that we wrote before, "" if none.

        Safe to call again after any failure. Raises EditedByPerson when the path holds neither
        these bytes nor ``ours``, and EdgeError for everything else that went wrong.
        """
        ...

    def remove(self, path: str, *, ours: str, message: str) -> bool:
        """Take our file away: True removed, False already gone. Raises as ``publish`` does."""
        ...


class EditedByPerson(EdgeError):
    """The path holds something that we did not write. ``found`` and ``ours`` are blob shas."""

    def __init__(self, path: str, *, found: str, ours: str) -> None:
        was = f"what we wrote was {ours}" if ours else "nothing of ours was there"
        super().__init__(
            f"the file at {path} is {found}, but {was}: somebody else put it there. It was left as "
            "it is. Move or delete that file and retry, or release without the blog.",
            permanent=True,
        )
        self.path = path
        self.found = found
        self.ours = ours


def blob_sha(data: bytes) -> str:
    """Git's name for these bytes as a file: SHA-1 over "blob <length>\\0" and the bytes, in hex."""
    header = b"blob %d\0" % len(data)
    return hashlib.sha1(header + data, usedforsecurity=False).hexdigest()


def check_path(path: str) -> None:
    """Refuse, with a ValueError, what is not a plain relative path of a file in a repository."""
    if not path:
        raise ValueError("the path is empty: give one such as content/posts/{slug}.md")
    if path.startswith("/"):
        raise ValueError(f"the path {path!r} is absolute: leave out the leading slash")
    if "\\" in path:
        raise ValueError(f"the path {path!r} holds a backslash: separate folders with /")
    if any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in path):
        raise ValueError(f"the path {path!r} holds a control character: remove it")
    for segment in path.split("/"):
        _check_segment(path, segment)


def require_path(path: str) -> None:
    """``check_path`` for the publishers: the same refusal as a permanent EdgeError."""
    try:
        check_path(path)
    except ValueError as error:
        raise EdgeError(f"cannot publish: {error}", permanent=True) from None


def require_ours(path: str, *, found: str, ours: str) -> None:
    """Raise EditedByPerson unless the path holds nothing (``found`` is "") or what we wrote."""
    if found not in ("", ours):
        raise EditedByPerson(path, found=found, ours=ours)


def _check_segment(path: str, segment: str) -> None:
    if not segment:
        raise ValueError(f"the path {path!r} has an empty segment: remove the extra slash")
    if segment in (".", ".."):
        raise ValueError(f"the path {path!r} has a {segment!r} segment: write the path out")
    # Some file systems ignore case, trailing dots and trailing spaces: all of these are .git there.
    if segment.rstrip(". ").casefold() == ".git":
        raise ValueError(f"the path {path!r} leads into .git: choose a folder of the blog")
    if len(segment.encode()) > SEGMENT_BYTES:
        raise ValueError(
            f"the path has a segment of more than {SEGMENT_BYTES} bytes, "
            f"{segment[:30]!r}...: shorten it"
        )
