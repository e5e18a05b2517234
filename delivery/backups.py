"""A copy of the database that knows that it is one, and the way back: SQLite by its own backup, PostgreSQL by pg_dump.

A copy has forgotten what is sent after it. So it is doubted from the beginning, also where no witness is: SQLite's
bears the mark itself, PostgreSQL's gets it when it is put back.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import Error, connection, transaction
from django.db.migrations.loader import MigrationLoader
from psycopg import pq

from newsletter.models import Refused, Transition, database_now
from newsletter.models.transition import Subject

from .models import Heartbeat, House
from .models.job import Lane

SIDE_FILES = ("-wal", "-shm")
MARK = """
INSERT INTO delivery_house (id, releases, identity, paused_reason, paused_by, doubt, doubted_at)
VALUES (1, 0, '', '', '', ?, ?)
ON CONFLICT (id) DO UPDATE SET doubt = excluded.doubt, doubted_at = excluded.doubted_at
"""


def backup(file: Path) -> str:
    """Copy the database into a new file that only its owner may read; in words, what it is. Refused says why not.

    Everything else goes on meanwhile; the copy is of one moment.
    """
    if os.path.lexists(file):  # also a link that leads nowhere
        raise Refused(f"{file} is there already: name another file.")
    copy = _copy_sqlite if connection.vendor == "sqlite" else _dump
    with _new(file) as part:
        try:
            copy(part)
        except sqlite3.Error as error:
            raise Refused(
                f"The database cannot be copied: {error}. Is it up to date (migrate)?"
            ) from None
        part.chmod(0o600)
        _sync(part)
        part.rename(file)
        _sync(file.parent)
    return f"{file}: {file.stat().st_size:,} bytes, checked. Put back, it is doubted until confirm_database."


def restore(file: Path) -> list[str]:
    """Put a backup in the place of the database, which is kept beside it; what was done, in words. Refused says why.

    Nothing else may use the database meanwhile.
    """
    if not file.is_file():
        raise Refused(f"{file} is not there.")
    if living := _living():
        raise Refused(
            f"`work` lives ({', '.join(living)}): stop it. After a kill its last sign of life counts for two minutes."
        )
    made = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    put_back = _restore_sqlite if connection.vendor == "sqlite" else _restore_postgres
    kept = put_back(file)
    call_command("migrate", verbosity=0)
    _doubt(
        f"restored from the backup of {made:%Y-%m-%d %H:%M} UTC: it has forgotten what was sent since"
    )
    return [f"{file} is the database now.", kept]


def _copy_sqlite(part: Path) -> None:
    now = datetime.now(UTC)
    doubt = f"restored from the backup of {now:%Y-%m-%d %H:%M} UTC: it has forgotten what was sent since"
    with _opened(_database(), "rw") as source, _opened(part) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without companions
        copy.execute(MARK, [doubt, now.replace(tzinfo=None).isoformat(" ")])
        copy.commit()
        _check_integrity(copy, part)


def _restore_sqlite(file: Path) -> str:
    database = _database()
    with _new(database) as part:
        _copy_checked(file, part)
        _sync(part)
        connection.close()
        kept = _set_aside(database)
        part.rename(database)
        _sync(database.parent)
    return f"What was there before: {kept}." if kept else "There was none before."


def _copy_checked(file: Path, part: Path) -> None:
    """As SQLite reads it: what a raw copy committed last stands in the log beside it."""
    try:
        with _opened(file, "ro") as source, _opened(part, "rw") as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            _check_integrity(copy, file)
            _check_migrations(_applied(copy))
    except sqlite3.Error as error:
        raise Refused(f"{file} cannot be read as a database: {error}.") from None


def _set_aside(database: Path) -> Path | None:
    """The old file under another name. Refused while any other process has it open: it would go on writing to it."""
    if not database.exists():
        return None
    try:
        with _opened(database) as old:
            old.execute("PRAGMA journal_mode=DELETE")  # alone, it takes the log into the file
    except sqlite3.OperationalError:
        raise Refused(
            "Another process has the database open: stop `work`, gunicorn and every shell."
        ) from None
    except sqlite3.DatabaseError:
        pass  # damaged: kept as it is, for who can mend it
    kept = database.with_name(f"{database.name}.before-{_stamp()}")
    for side in ("", *SIDE_FILES):
        part = Path(f"{database}{side}")
        if part.exists():
            part.rename(f"{kept}{side}")
    return kept


def _dump(part: Path) -> None:
    _run("pg_dump", "--format=custom", f"--schema={_schema()}", f"--file={part}")
    _run("pg_restore", "--list", str(part))


def _restore_postgres(file: Path) -> str:
    """Into an empty schema, in one transaction; the old one is kept under another name, and comes back on failure."""
    _run("pg_restore", "--list", str(file))
    schema, kept = _schema(), f"before_{_stamp().lower()}"
    _execute(f'ALTER SCHEMA "{schema}" RENAME TO "{kept}"', f'CREATE SCHEMA "{schema}"')
    try:
        _run(
            "pg_restore",
            "--single-transaction",
            "--exit-on-error",
            "--no-owner",
            "--no-privileges",
            f"--schema={schema}",
            f"--dbname={connection.settings_dict['NAME']}",
            str(file),
        )
        with connection.cursor() as cursor:
            cursor.execute("SELECT app, name FROM django_migrations")
            _check_migrations(set(cursor.fetchall()))
    except (Refused, Error):
        _execute(f'DROP SCHEMA "{schema}" CASCADE', f'ALTER SCHEMA "{kept}" RENAME TO "{schema}"')
        raise
    return f"What was there before: the schema {kept} (DROP SCHEMA {kept} CASCADE when it is not wanted any more)."


def _doubt(why: str) -> None:
    with transaction.atomic():
        house = House.lock()
        if house.doubt:  # the copy says it itself
            return
        old, house.doubt, house.doubted_at = house.standing, why, database_now()
        house.save()
        Transition.objects.record(Subject.HOUSE, [1], old, house.standing, why, "restore")


def _living() -> list[str]:
    """Each `work` that gave a sign of life; none where the database cannot be asked: there is nothing to lose then."""
    try:
        beats = Heartbeat.objects.fresh(database_now()).filter(lane__in=Lane.values)
        return sorted(set(beats.values_list("work", flat=True)))
    except Error:
        return []


def _check_integrity(database: sqlite3.Connection, file: Path) -> None:
    try:
        said = [word for (word,) in database.execute("PRAGMA integrity_check")]
    except sqlite3.DatabaseError as error:
        said = [str(error)]
    if said != ["ok"]:
        raise Refused(f"{file} is no sound database: {said[0]}.")


def _applied(database: sqlite3.Connection) -> set[tuple[str, str]]:
    try:
        return set(database.execute("SELECT app, name FROM django_migrations"))
    except sqlite3.DatabaseError:
        raise Refused("The file is a database, but none of Carteiro's.") from None


def _check_migrations(applied: set[tuple[str, str]]) -> None:
    """Older ones are migrated; a newer one needs its version of the code."""
    known = MigrationLoader(None).disk_migrations
    ours = {app for app, _ in known}
    newer = sorted(
        f"{app}.{name}" for app, name in applied if app in ours and (app, name) not in known
    )
    if newer:
        raise Refused(
            f"The backup is of a newer version of Carteiro ({newer[0]}): install that one."
        )
    if not {"newsletter", "delivery"} <= {app for app, _ in applied}:
        raise Refused("The backup is a database, but none of Carteiro's.")


def _run(program: str, *args: str) -> None:
    """One of PostgreSQL's programs. Where and as whom goes by its environment: an argument is seen by all."""
    try:
        done = subprocess.run(  # noqa: S603 - a list, and no shell
            [program, *args],
            env={**os.environ, **_libpq()},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise Refused(
            f"{program} is not there: install PostgreSQL's client programs, of the server's version or newer."
        ) from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no word"]
        raise Refused(f"{program} failed: {'; '.join(said[:2])}")


def _libpq() -> dict[str, str]:
    """The connection's parameters as the variables that libpq reads."""
    names = {
        row.keyword.decode(): row.envvar.decode()
        for row in pq.Conninfo.get_defaults()
        if row.envvar
    }
    given: dict[str, Any] = connection.get_connection_params()
    return {names[key]: str(value) for key, value in given.items() if key in names and value}


def _schema() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_schema()")
        return str(cursor.fetchone()[0])


def _execute(*statements: str) -> None:
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    except Error as error:
        raise Refused(f"The old schema cannot be set aside: {str(error).strip()}") from None


def _database() -> Path:
    return Path(connection.settings_dict["NAME"])


@contextmanager
def _opened(file: Path, mode: str = "rwc") -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode={mode}", uri=True)) as database:
        yield database


@contextmanager
def _new(file: Path) -> Iterator[Path]:
    """A file beside it, for its owner alone, that is gone afterwards unless it was renamed. Refused: it cannot be."""
    try:
        made, name = tempfile.mkstemp(prefix=f"{file.name}.", suffix=".part", dir=file.parent)
        os.close(made)
    except OSError as error:
        raise Refused(f"{file} cannot be written: {error.strerror}.") from None
    part = Path(name)
    try:
        yield part
    except OSError as error:
        raise Refused(f"{file} cannot be written: {error.strerror}.") from None
    finally:
        for side in ("", "-journal", *SIDE_FILES):
            Path(f"{part}{side}").unlink(missing_ok=True)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _stamp() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
