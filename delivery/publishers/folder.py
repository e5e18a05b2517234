"""Publish into a local directory, for example a git work tree. Writes the file, runs no git."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from delivery.errors import EdgeError
from delivery.publishers import (
    Post,
    Published,
    blob_sha,
    check_path,
    require_ours,
    require_path,
)

# A person has to change something before these go away. All others (disk full, I/O error,
# a mount that is gone for a moment) may heal, and are tried again.
PERMANENT = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}


class FolderPublisher:
    """A publisher whose repository is the directory ``root``; it must exist.

    Each write is atomic and on disk when the method returns. A person who saves the same file
    between our look and our rename (well under a millisecond) is not noticed: a directory has no
    compare-and-swap.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def publish(self, post: Post, *, ours: str) -> Published:
        """See ``Publisher.publish``."""
        sha = blob_sha(post.data)
        with self._errors(f"write {post.path}"):
            target = self._inside(post.path)
            found = _sha_of(target, post.path)
            if found != sha:
                require_ours(post.path, found=found, ours=ours)
                _make_parents(target.parent)
                _replace(target, post.data)
            _sync(target.parent)
        return Published(sha, changed=found != sha)

    def remove(self, path: str, *, ours: str, message: str) -> bool:
        """See ``Publisher.remove``; ``message`` is for publishers that commit."""
        with self._errors(f"remove {path}"):
            target = self._inside(path)
            found = _sha_of(target, path)
            if not found:
                return False
            require_ours(path, found=found, ours=ours)
            target.unlink(missing_ok=True)
            _sync(target.parent)
            return True

    def _inside(self, path: str) -> Path:
        """The real file behind ``path``, symbolic links followed as long as they stay in root."""
        require_path(path)
        root = self.root.resolve()
        if not root.is_dir():
            raise EdgeError(
                f"the blog's folder {self.root} does not exist or is not a directory: "
                "create it, or correct the setting",
                permanent=True,
            )
        try:
            target = (root / path).resolve()
            check_path(target.relative_to(root).as_posix())
        except (ValueError, RuntimeError):  # outside; into .git; a loop of links before 3.13
            raise EdgeError(
                f"{path} leads out of the blog's folder {self.root} through a symbolic link: "
                "remove the link, or choose another path",
                permanent=True,
            ) from None
        return target

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            permanent = error.errno in PERMANENT
            advice = "mend the folder or its permissions" if permanent else "it is tried again"
            raise EdgeError(
                f"cannot {doing} in the blog's folder {self.root}: {error.strerror}; {advice}",
                permanent=permanent,
            ) from None


def _sha_of(target: Path, path: str) -> str:
    """The blob sha of what stands there, "" for nothing."""
    if not target.exists():
        return ""
    if not target.is_file():  # reading a FIFO would wait for ever
        raise EdgeError(f"{path} is a directory or no plain file: choose another", permanent=True)
    return blob_sha(target.read_bytes())


def _make_parents(folder: Path) -> None:
    if not folder.exists():
        _make_parents(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _replace(target: Path, data: bytes) -> None:
    """Write beside the target and rename over it: a reader sees the old bytes or the new."""
    temporary = target.with_name(f".carteiro-{secrets.token_hex(8)}.tmp")
    try:
        # Not tempfile: its 0600 would hide the post from a site builder under another user.
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
