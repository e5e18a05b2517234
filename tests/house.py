"""A house: a Carteiro of its own in a temporary folder, with real processes, a real database and its own settings.

    with a_house(EMAIL_URL=server.url) as house:
        work = house.start_work()
        house.manage("release", "first", "--now")
        house.wait_until(lambda: house.state() == "sent", 30)

It comes with a newsletter `weekly`, READERS subscribers and the approved issue `first`, all made by the real
commands. TEST_DATABASE chooses the database, as for the other tests.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import sql

ROOT = Path(__file__).resolve().parent.parent
ON_POSTGRES = os.environ.get("TEST_DATABASE", "sqlite") == "postgres"
READERS = 300
MARK = "CARTEIRO_HOUSE"  # in the environment of each of a house's processes: also orphans are found

_SEVERAL = """
import json, sys
import django
from django.core.management import call_command
django.setup()
for command in json.loads(sys.argv[1]):
    call_command(*command)
"""


class House:
    """Its folder, its database, its settings; a context manager that ends all its processes."""

    def __init__(self, folder: Path, database_url: str, settings: dict[str, str]) -> None:
        self.folder = folder
        self.database_url = database_url
        self.mark = uuid.uuid4().hex
        self.log = folder / "work.log"
        self.settings = settings
        self.started: list[subprocess.Popen[Any]] = []

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a process of this house sees."""
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")}
        return {
            **kept,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "ENV_FILE": os.devnull,
            "SECRET_KEY": "only-for-a-house-" + "y" * 40,
            "PUBLIC_URL": "http://news.example.org",
            "EMAIL_URL": "smtp://127.0.0.1:1",
            "ALLOW_PRIVATE_URLS": "127.0.0.0/8",
            "NO_PROXY": "127.0.0.1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "DATABASE_URL": self.database_url,
            "WITNESS_URL": str(self.folder / "witness"),
            "LEASE_SECONDS": "3",
            **self.settings,
            MARK: self.mark,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_everything()
        for process in self.started:
            process.communicate()
        _drop(self.database_url)
        shutil.rmtree(self.folder, ignore_errors=True)

    def manage(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; an exit code other than 0 is an error where `check` says so."""
        done = subprocess.run(
            [sys.executable, "manage.py", *args],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not check or done.returncode == 0, f"{args[0]}: {done.stdout}{done.stderr}"
        return done

    def manage_all(self, *commands: list[str]) -> None:
        """Run several commands in one interpreter: most of a short command's time is its start."""
        done = self.python(_SEVERAL, json.dumps(commands))
        _, errors = done.communicate(timeout=120)
        assert done.returncode == 0, errors

    def python(self, code: str, *args: str) -> subprocess.Popen[str]:
        """Start a Python program that sees this house's settings."""
        return self.program("-c", code, *args)

    def program(self, *args: str) -> subprocess.Popen[str]:
        """The same, by the interpreter's own arguments."""
        process = subprocess.Popen(
            [sys.executable, *args],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def start_work(
        self, *, ready: bool = True, program: tuple[str, ...] = ("manage.py", "work")
    ) -> Work:
        """Start `work`, or a program that runs it; `ready` waits until its lanes are up."""
        started = self.log_text().count("work.started")
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *program],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(process)
        if ready:
            self.wait_until(lambda: self.log_text().count("work.started") > started, 30)
        return Work(process)

    def log_text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def processes(self) -> dict[int, str]:
        """Every living process of this house, also one in another session or without its parent: pid -> command."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):  # it ended just now, or is another user's
                if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes():
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = command.decode()
        return found

    def signal_everything(self, number: int) -> None:
        """Send one signal to each process, as a service manager does with a control group."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill_everything(self) -> None:
        """kill -9, until nothing is left."""
        end = time.monotonic() + 10
        while self.processes():
            assert time.monotonic() < end, "some processes survive"
            self.signal_everything(signal.SIGKILL)
            time.sleep(0.01)
        for process in self.started:
            process.wait()

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Read rows past all of our code."""
        return _execute(self.database_url, statement)

    def change(self, statement: str) -> None:
        """Write past all of our code: only what no command can say."""
        _execute(self.database_url, statement)

    def value(self, statement: str) -> Any:
        """The first row's first column."""
        return self.query(statement)[0][0]

    def state(self, slug: str = "first") -> str:
        return str(self.value(f"SELECT state FROM newsletter_issue WHERE slug = '{slug}'"))

    def statuses(self) -> dict[str, int]:
        """How many deliveries have each status."""
        counted = "SELECT status, count(*) FROM delivery_emaildelivery GROUP BY status"
        return {str(status): int(n) for status, n in self.query(counted)}

    def addresses(self, status: str) -> set[str]:
        rows = self.query(f"SELECT address FROM delivery_emaildelivery WHERE status = '{status}'")
        return {str(address) for (address,) in rows}

    def history(self, slug: str = "first") -> list[tuple[str, str]]:
        """(new state, reason) of an issue, in order."""
        rows = self.query(
            "SELECT t.new, t.reason FROM newsletter_transition t JOIN newsletter_issue i "
            f"ON t.subject = 'issue' AND t.subject_id = i.id AND i.slug = '{slug}' ORDER BY t.id"
        )
        return [(str(new), str(reason)) for new, reason in rows]

    def leases_are_over(self) -> bool:
        now = "now()" if ON_POSTGRES else "strftime('%Y-%m-%d %H:%M:%f', 'now')"
        return not self.value(
            f"SELECT (SELECT count(*) FROM delivery_lease WHERE expires_at > {now})"
            f" + (SELECT count(*) FROM delivery_job WHERE lease_until > {now})"
        )

    def wait_until(self, holds: Callable[[], object], seconds: float) -> None:
        """Return as soon as it holds; after so long, fail with the log's end."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                tail = "\n".join(self.log_text().splitlines()[-40:])
                raise AssertionError(
                    f"it does not hold after {seconds} s; the log ends so:\n{tail}"
                )
            time.sleep(0.02)


class Work:
    """A `work` that was started."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    def terminate(self, seconds: float = 30, number: int = signal.SIGTERM) -> int:
        """Ask the main process to stop, and wait: its exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """kill -9 of the main process alone."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def a_house(*, empty: bool = False, template: str = "", **settings: str) -> Iterator[House]:
    """A house of its own; `empty` has tables and nothing in them. The settings are environment variables.

    `template`: the URL of a database to copy, which nobody uses meanwhile.
    """
    folder = Path(tempfile.mkdtemp(prefix="carteiro-house-"))
    url = _copy(template or (_migrated() if empty else _furnished()), folder)
    with House(folder, url, settings) as house:
        yield house


def write_subscribers(file: Path, count: int) -> None:
    """A CSV file: reader0@example.org and so on."""
    lines = (f"reader{n}@example.org,Reader {n}" for n in range(count))
    file.write_text("\n".join(["email,name", *lines]) + "\n")


def write_issue(file: Path, slug: str, date: str = "2026-06-01") -> None:
    """An issue's Markdown with its front matter."""
    file.write_text(
        f"---\ntitle: The issue {slug}\nslug: {slug}\ndate: {date}\nsummary: What it says\n---\n\n"
        "Good morning.\n\n## A heading\n\nSome text with a [link](https://example.org/).\n"
    )


def newsletter_command(slug: str, *more: str) -> list[str]:
    """create_newsletter with what it demands."""
    return [
        "create_newsletter",
        slug,
        *("--name", slug.capitalize(), "--from-email", "ana@example.org"),
        *("--postal-address", "Rua das Flores 1, Lisboa", *more),
    ]


@functools.cache
def _migrated() -> str:
    """The URL of a database with tables, made once."""
    folder = Path(tempfile.mkdtemp(prefix="carteiro-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    url = _new_database(folder)
    House(folder, url, {}).manage("migrate", "--verbosity=0")
    return url


@functools.cache
def _furnished() -> str:
    """The URL of a database with a newsletter, its readers and an approved issue, made once."""
    folder = Path(tempfile.mkdtemp(prefix="carteiro-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    url = _copy(_migrated(), folder)
    write_subscribers(folder / "readers.csv", READERS)
    write_issue(folder / "first.md", "first")
    House(folder, url, {}).manage_all(
        newsletter_command("weekly"),
        ["import_subscribers", str(folder / "readers.csv"), "--newsletter", "weekly"],
        ["load_issue", str(folder / "first.md"), "--newsletter", "weekly", "--approve"],
    )
    return url


def _new_database(folder: Path, template: str = "template1") -> str:
    if not ON_POSTGRES:
        return f"sqlite:///{folder / 'house.sqlite3'}"
    name = f"house_{uuid.uuid4().hex}"
    server = os.environ["DATABASE_URL"]
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    return _named(server, name)


def _named(server: str, name: str) -> str:
    head, _, query = server.partition("?")
    base = head.rpartition("/")[0]
    return f"{base}/{name}?{query}" if query else f"{base}/{name}"


def _name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def _copy(url: str, folder: Path) -> str:
    if ON_POSTGRES:
        return _new_database(folder, _name(url))
    made = _new_database(folder)
    with (
        contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as old,
        contextlib.closing(sqlite3.connect(made.removeprefix("sqlite:///"))) as new,
    ):
        old.backup(new)
    return made


def _drop(url: str) -> None:
    if not ON_POSTGRES:
        return
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(_name(url)))
        )


def _execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    if ON_POSTGRES:
        with psycopg.connect(url, autocommit=True) as connection:
            found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []
    with contextlib.closing(
        sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)
    ) as database:
        database.isolation_level = None
        return database.execute(statement).fetchall()
