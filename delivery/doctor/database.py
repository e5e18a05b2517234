"""The database: whether it keeps what it commits, and how long that takes."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from django.conf import settings
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor

from delivery.models import Heartbeat
from newsletter.models import database_now

from .findings import Finding, ok, warn, wrong

SUBJECT = "database"
SAMPLES = 20
SCARCE, FULL = 1_000_000_000, 100_000_000  # bytes free
SKEW_SECONDS = 2.0
# Locks and the shared memory of WAL are not kept there, or the file is gone with the power.
REMOTE = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs"}
IN_MEMORY = {"tmpfs", "ramfs"}
# Each is on by default; off, a commit that was answered can be lost, or the database with it.
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
# Connections of a host to PostgreSQL: an idle `work`, two for each worker, and gunicorn's threads.
IDLE, EACH_WORKER, WEB = 7, 2, 8


def examine() -> Iterator[Finding]:
    """Raises django.db.Error where the database cannot be asked."""
    yield from _migrations()
    if is_migrated():
        yield from _writable()
    yield from _sqlite() if connection.vendor == "sqlite" else _postgresql()
    yield from _clock()


def is_migrated() -> bool:
    """Whether the tables are there that the others ask."""
    return not _unapplied()


def measure() -> tuple[float, float]:
    """Seconds of the smallest statement, and what a durable commit costs beyond it; medians."""
    statement = _median(lambda: _ask("SELECT 1"))
    if connection.vendor == "sqlite":
        return statement, _scratch_commit(Path(connection.settings_dict["NAME"]).parent)
    # A message in the log that nobody reads: its commit is flushed as any other's, and no table is touched. That of a
    # temporary table, or of txid_current() alone, is not flushed.
    message = "SELECT pg_logical_emit_message(true, 'carteiro.doctor', '')"
    return statement, max(0.0, _median(lambda: _ask(message)) - statement)


def _ask(sql: str) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def _median(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(SAMPLES):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return median(taken)


def _scratch_commit(folder: Path) -> float:
    """Of one small row, in a file of its own beside the database, with the very pragmas. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as scratch:
        own = sqlite3.connect(Path(scratch, "scratch.sqlite3"), isolation_level=None)
        try:
            own.executescript(connection.settings_dict["OPTIONS"]["init_command"])
            own.execute("CREATE TABLE scratch (id INTEGER PRIMARY KEY)")
            return _median(lambda: own.execute("INSERT INTO scratch DEFAULT VALUES"))
        except sqlite3.Error as error:  # none of Django's: the disk may be full
            raise OSError(str(error)) from None
        finally:
            own.close()


def _migrations() -> Iterator[Finding]:
    if missing := _unapplied():
        yield wrong("migrations", f"{len(missing)} are not applied", "manage.py migrate")
    else:
        yield ok("migrations", "all applied")


def _unapplied() -> list[tuple]:
    executor = MigrationExecutor(connection)
    return list(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _writable() -> Iterator[Finding]:
    try:
        Heartbeat.objects.filter(pk__lt=0).update(lane="")
    except Error as error:
        said = f"it cannot be written: {_words(error)}"
        yield wrong(SUBJECT, said, "give this user the right to write it, and its folder")


def _sqlite() -> Iterator[Finding]:
    file = Path(connection.settings_dict["NAME"])
    modes = (_ask("PRAGMA journal_mode")[0][0], _ask("PRAGMA synchronous")[0][0])
    if modes != ("wal", 2):
        said = (
            f"SQLite has journal_mode={modes[0]} and synchronous={modes[1]}, not wal and 2 (FULL)"
        )
        yield wrong(SUBJECT, said, "is its file system one that takes -shm files? use a local disk")
    else:
        yield ok(SUBJECT, "SQLite, journal_mode=WAL, synchronous=FULL")
    yield from _file_system(_kind_of(file.parent))
    yield from _space(shutil.disk_usage(file.parent).free)


def _file_system(kind: str) -> Iterator[Finding]:
    if kind in REMOTE or kind.startswith("fuse."):
        todo = "put it on a local disk, or use PostgreSQL"
        yield warn("disk", f"the database lies on {kind}: its locks may not hold there", todo)
    if kind in IN_MEMORY:
        yield warn("disk", f"the database lies on {kind}: it is gone with the power", "use a disk")


def _space(free: int) -> Iterator[Finding]:
    said = f"{free / 1e9:.1f} GB are free where the database lies"
    if free < FULL:
        yield wrong("disk", said, "make room now: nothing is sent where nothing can be written")
    elif free < SCARCE:
        yield warn("disk", said, "make room")
    else:
        yield ok("disk", said)


def _kind_of(folder: Path) -> str:
    """The type of a folder's file system; empty where nothing tells (/proc is Linux's)."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    here, found = folder.resolve(), (0, "")
    for line in mounts:
        left, _, right = line.partition(" - ")
        point = Path(left.split()[4].replace("\\040", " "))
        if here.is_relative_to(point):
            found = max(found, (len(point.parts), right.split()[0]), key=lambda known: known[0])
    return found[1]


def _postgresql() -> Iterator[Finding]:
    names = (*DURABLE, "max_connections", "superuser_reserved_connections", "server_version")
    quoted = ", ".join(f"'{name}'" for name in names)
    found = dict(_ask(f"SELECT name, setting FROM pg_settings WHERE name IN ({quoted})"))  # noqa: S608 - our own names
    off = [name for name in DURABLE if found[name] == "off"]
    if off:
        said = f"PostgreSQL runs with {', '.join(off)} off: what it committed can be lost"
        yield wrong(SUBJECT, said, f"switch {', '.join(off)} on: a lost mark is a second copy")
    else:
        yield ok(SUBJECT, f"PostgreSQL {found['server_version'].split()[0]}, durable commits")
    room = int(found["max_connections"]) - int(found["superuser_reserved_connections"])
    yield from _connections(room, _needed())


def _needed() -> int:
    workers = settings.WORKERS_CRITICAL + settings.WORKERS_DEFAULT + settings.WORKERS_BULK
    works = Heartbeat.objects.fresh(database_now()).values_list("work", flat=True)
    hosts = {work.partition(":")[0] for work in works}
    of_a_host: int = IDLE + EACH_WORKER * workers + WEB
    return max(1, len(hosts)) * of_a_host


def _connections(room: int, needed: int) -> Iterator[Finding]:
    said = f"{room} connections are allowed, {needed} may be needed"
    if needed > room:
        yield wrong("connections", said, f"raise max_connections by {needed - room} or more")
    else:
        yield ok("connections", said)


def _clock() -> Iterator[Finding]:
    apart = abs((database_now() - datetime.now(UTC)).total_seconds())
    if apart > SKEW_SECONDS:
        said = f"this host's clock and the database's are {apart:.0f} s apart"
        yield warn("clock", said, "let both follow a time server")
    else:
        yield ok("clock", "this host's and the database's agree")


def _words(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
