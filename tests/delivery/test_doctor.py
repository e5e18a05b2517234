"""The doctor: what it finds wrong, what it proposes, and that it changes and betrays nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from pytest_django import Settings

from delivery import doctor
from delivery.doctor import Finding, Measured, Plan, database, tuning
from delivery.models import House
from newsletter.models import database_now
from tests import cast
from tests.stand_ins.smtp import Act, SmtpStandIn, say_then_drop, stall

FAR = Measured(
    database="postgresql",
    statement=0.0003,
    commit=0.002,
    cpus=2,
    round_trip=0.1,
    pipelining=True,
    local_server=False,
    admitted=16,
    refused=False,
    readers=1_000_000,
)
NEAR = replace(FAR, round_trip=0.00005, local_server=True)


@pytest.fixture
def server(settings: Settings) -> Iterator[SmtpStandIn]:
    with SmtpStandIn() as server:
        settings.EMAIL_URL = server.url
        yield server


def run(*words: str) -> tuple[int, str]:
    out = io.StringIO()
    try:
        call_command("doctor", *words, stdout=out)
    except CommandError as error:
        return error.returncode, out.getvalue()
    return 0, out.getvalue()


def found(subject: str, level: str) -> list[Finding]:
    findings = doctor.examine().findings
    return [one for one in findings if (one.subject, one.level) == (subject, level)]


def session(on_sqlite: str, on_postgres: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(on_sqlite if connection.vendor == "sqlite" else on_postgres)


@pytest.mark.django_db(transaction=True)
def test_it_finds_nothing_wrong_with_a_sound_house_and_says_what_to_set(
    server: SmtpStandIn, settings: Settings
) -> None:
    cast.readers(cast.newsletter(), 3)
    settings.DELIVERY_CONNECTIONS = 2
    server.on("noop", stall(0.005))
    code, out = run()
    assert code == 0
    assert "it let in all of 4 connections (2 senders with 2)" in out
    assert "now: DELIVERY_CONNECTIONS=2 DELIVERY_WINDOW=8 WORKERS_BULK=2" in out
    assert "\nFor .env:\nDELIVERY_CONNECTIONS=8\nDELIVERY_WINDOW=8\n" in out
    assert server.copies == []


@pytest.mark.django_db(transaction=True)
def test_it_speaks_to_machines(server: SmtpStandIn) -> None:
    cast.readers(cast.newsletter(), 3)
    said = json.loads(run("--json")[1])
    assert said["well"] is True
    assert said["measured"]["readers"] == 3
    assert said["measured"]["database"] == connection.vendor
    assert said["measured"]["commit"] > 0
    assert set(said["plans"]) == {"now", "proposed"}
    assert {finding["level"] for finding in said["findings"]} <= {"ok", "warn"}


@pytest.mark.django_db(transaction=True)
def test_it_leaves_no_trace(server: SmtpStandIn, settings: Settings) -> None:
    folder = Path(settings.WITNESS_URL).parent
    before = (sorted(folder.iterdir()), House.objects.count())
    doctor.examine()
    assert (sorted(folder.iterdir()), House.objects.count()) == before
    assert not list(Path(connection.settings_dict["NAME"]).parent.glob(".doctor-*"))


@pytest.mark.django_db(transaction=True)
def test_a_mail_server_that_is_away_is_wrong_and_the_rest_is_looked_at(settings: Settings) -> None:
    code, out = run()
    assert code == 1
    assert "wrong  mail server  it does not let us in: connect: no connection to" in out
    assert "ok     migrations" in out
    assert "now:" not in out


@pytest.mark.django_db(transaction=True)
def test_it_shows_no_password_and_no_address(settings: Settings) -> None:
    with SmtpStandIn(auth=("ana%40example.org", "s3cret-w0rd")) as server:
        settings.EMAIL_URL = server.url
        server.on("auth", say_then_drop("535 5.7.8 not ana@example.org, with s3cret-w0rd"))
        code, out = run()
    assert code == 1
    assert "AUTH: 535" in out
    assert "s3cret" not in out
    assert "example.org" not in out


@pytest.mark.django_db(transaction=True)
def test_it_takes_the_connections_that_the_server_lets_in(
    server: SmtpStandIn, settings: Settings
) -> None:
    server.on("greeting", Act(), times=1)
    server.on("greeting", say_then_drop("421 4.7.0 one at a time"))
    code, out = run()
    assert code == 0
    assert "warn   mail server  it let in 1 of 16 connections" in out
    assert "\nFor .env:\nDELIVERY_CONNECTIONS=1\n" in out
    assert out.endswith("WORKERS_BULK=1\n")


@pytest.mark.django_db(transaction=True)
def test_it_warns_of_a_server_without_pipelining(settings: Settings) -> None:
    with SmtpStandIn(extensions=("8BITMIME", "SMTPUTF8")) as server:
        settings.EMAIL_URL = server.url
        assert [one.said for one in found("mail server", "warn")] == [
            "PIPELINING is not announced: a message takes four round trips instead of two"
        ]


@pytest.mark.django_db(transaction=True)
def test_a_providers_rate_decides_and_nothing_is_proposed(settings: Settings) -> None:
    settings.EMAIL_URL = "anymail+postmark://t0ken@"
    report = doctor.examine()
    assert report.is_well
    assert report.plans == {}
    assert not any("t0ken" in finding.said for finding in report.findings)


@pytest.mark.django_db(transaction=True)
def test_a_database_that_takes_no_writes_is_wrong(server: SmtpStandIn) -> None:
    session("PRAGMA query_only=ON", "SET default_transaction_read_only=on")
    try:
        (finding,) = found("database", "wrong")
    finally:
        session("PRAGMA query_only=OFF", "SET default_transaction_read_only=off")
    assert finding.said.startswith("it cannot be written: ")


@pytest.mark.django_db(transaction=True)
def test_a_database_that_may_lose_what_it_committed_is_wrong(server: SmtpStandIn) -> None:
    session("PRAGMA synchronous=NORMAL", "SET synchronous_commit=off")
    try:
        (finding,) = found("database", "wrong")
    finally:
        session("PRAGMA synchronous=FULL", "SET synchronous_commit=on")
    assert "synchronous" in finding.said


@pytest.mark.django_db(transaction=True)
def test_a_missing_migration_is_wrong(server: SmtpStandIn) -> None:
    recorder = MigrationRecorder(connection)
    (last,) = MigrationLoader(connection).graph.leaf_nodes("delivery")
    recorder.record_unapplied(*last)
    try:
        report = doctor.examine()
    finally:
        recorder.record_applied(*last)
    assert Finding("wrong", "migrations", "1 are not applied", "manage.py migrate") in (
        report.findings
    )
    assert report.measured is None


@pytest.mark.django_db(transaction=True)
def test_a_doubted_database_is_wrong_and_a_pause_is_told(server: SmtpStandIn) -> None:
    House.objects.create(pk=1, doubt="it was put back", doubted_at=database_now())
    assert found("house", "wrong")
    House.objects.update(doubt="", paused_at=database_now())
    assert found("house", "warn")


@pytest.mark.django_db(transaction=True)
def test_a_witness_that_cannot_be_read_is_wrong_and_stays_as_it_is(
    server: SmtpStandIn, settings: Settings
) -> None:
    place = Path(settings.WITNESS_URL)
    place.write_text("no witness's word")
    (finding,) = found("witness", "wrong")
    assert finding.todo == "look at WITNESS_URL"
    assert place.read_text() == "no witness's word"


@pytest.mark.django_db(transaction=True)
def test_a_witness_without_a_place_is_wrong(server: SmtpStandIn, settings: Settings) -> None:
    settings.WITNESS_URL = "/proc/nowhere/witness"
    (finding,) = found("witness", "wrong")
    assert "cannot be written" in finding.said


@pytest.mark.django_db(transaction=True)
def test_what_check_says_is_among_it(server: SmtpStandIn, settings: Settings) -> None:
    settings.GRACE_SECONDS = 1.0
    assert any("delivery.E002" in finding.said for finding in found("settings", "wrong"))


@pytest.mark.django_db(transaction=True)
def test_clocks_that_are_apart_are_told(
    server: SmtpStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour_ahead = database_now() + timedelta(hours=1)
    monkeypatch.setattr(database, "database_now", lambda: hour_ahead)
    (finding,) = found("clock", "warn")
    assert "s apart" in finding.said


@pytest.mark.parametrize(
    ("kind", "words"), [("nfs4", "locks"), ("fuse.sshfs", "locks"), ("tmpfs", "power")]
)
def test_it_warns_of_a_file_system_that_keeps_no_database(kind: str, words: str) -> None:
    (finding,) = database._file_system(kind)
    assert finding.level == "warn"
    assert words in finding.said


def test_a_local_disk_is_nothing_to_speak_of() -> None:
    assert list(database._file_system("ext4")) == []
    assert database._kind_of(Path("/proc/self")) == "proc"


@pytest.mark.parametrize(("free", "level"), [(5e7, "wrong"), (5e8, "warn"), (5e9, "ok")])
def test_it_looks_at_the_room_on_the_disk(free: float, level: str) -> None:
    (finding,) = database._space(int(free))
    assert finding.level == level


@pytest.mark.parametrize(("room", "level"), [(20, "wrong"), (97, "ok")])
def test_it_counts_the_connections_that_may_be_needed(room: int, level: str) -> None:
    (finding,) = database._connections(room, 31)
    assert finding.level == level


def test_over_a_long_way_the_connections_decide() -> None:
    most = 8 / (2 * FAR.round_trip)
    assert 0.9 * most <= tuning.expected(FAR, Plan(8, 8, 1)) <= most
    without = replace(FAR, pipelining=False)
    assert tuning.expected(without, Plan(8, 8, 1)) == pytest.approx(most / 2, rel=0.1)


def test_near_the_server_the_window_decides_and_each_step_gains_less() -> None:
    rates = [tuning.expected(NEAR, Plan(8, window, 1)) for window in (8, 16, 32, 64)]
    gains = [more / less for less, more in pairwise(rates)]
    assert gains[0] > gains[1] > gains[2] > 1


@pytest.mark.parametrize("vendor", ["sqlite", "postgresql"])
@pytest.mark.parametrize("round_trip", [0.00005, 0.005, 0.1])
@pytest.mark.parametrize("commit", [0.0001, 0.005, 0.05])
@pytest.mark.parametrize("admitted", [1, 5, 16])
def test_it_proposes_the_least_that_comes_near_to_what_is_possible(
    vendor: str, round_trip: float, commit: float, admitted: int
) -> None:
    here = replace(
        FAR,
        database=vendor,
        round_trip=round_trip,
        commit=commit,
        admitted=admitted,
        refused=True,
        readers=10**9,
    )
    plan = tuning.propose(here)
    smaller = replace(plan, window=plan.window // 2)
    best = max(
        tuning.expected(here, Plan(c, w, n))
        for c in (1, 2, 5, 16)
        for w in tuning.WINDOWS
        for n in (1, 2)
    )
    assert tuning.expected(here, plan) >= 0.9 * best - 1e-9
    assert plan.connections * plan.workers <= admitted
    assert plan.connections <= plan.window
    assert smaller.window < smaller.connections or tuning.expected(here, smaller) < 0.9 * best


def test_a_short_list_keeps_the_defaults() -> None:
    assert tuning.propose(replace(NEAR, readers=300)) == Plan(8, 8, 2)
    assert tuning.propose(replace(NEAR, readers=0)) == Plan(8, 8, 2)


def test_a_list_that_is_out_soon_is_not_hurried() -> None:
    """At 128 rows a sender it would be out in two minutes instead of five."""
    slow_disk = replace(NEAR, database="sqlite", commit=0.005)
    assert tuning.propose(slow_disk).window == 32
    assert tuning.propose(replace(slow_disk, readers=10**9)).window == 128


def test_a_rate_makes_a_wide_window_useless(settings: Settings) -> None:
    settings.DELIVERY_RATE = 10.0
    assert tuning.propose(NEAR) == Plan(8, 8, 2)
    assert tuning.expected(NEAR, Plan(8, 64, 2)) == pytest.approx(9.5)


def test_a_full_report_says_how_long_the_largest_list_takes() -> None:
    report = doctor.Report((), FAR)
    prospect: dict[str, Any] = report.prospect(Plan(8, 8, 2))
    rate = prospect["messages_per_second"]
    assert prospect["minutes"] == pytest.approx(1_000_000 / rate / 60, rel=0.01)
    assert prospect["rows_at_stake"] == 16
