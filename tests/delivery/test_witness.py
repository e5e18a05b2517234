"""The witness: a database that was put back is noticed before it sends; nothing else is taken for one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings as live
from django.core.management import call_command
from django.db import connection
from pytest_django import Settings

from delivery import recovery, release, sending, testimony, transactional, witness
from delivery.jobs import PARTS
from delivery.models import EmailDelivery, Heartbeat, House, Job, Lease, Notification
from delivery.models.heartbeat import TICK, WITNESS
from delivery.models.job import JobState
from delivery.outcome import Done, Wait
from delivery.testimony import Word
from newsletter.models import Issue, Newsletter, Subscription, Transition, database_now
from newsletter.models.transition import Subject
from tests import cast
from tests.drain import drain, drain_through_waits, frozen, history
from tests.stand_ins.http import HttpStandIn, Reply, Request, json_reply, redirect, reply
from tests.stand_ins.smtp import SmtpStandIn

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def smtp(settings: Settings) -> Iterator[SmtpStandIn]:
    with SmtpStandIn() as server:
        settings.EMAIL_URL = server.url
        settings.SMTP_TIMEOUT_SECONDS = 2
        yield server


@pytest.fixture(autouse=True)
def _waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "_alone_since", None)


class Keeper(HttpStandIn):
    """An address that keeps what is PUT there."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Reply = reply(404)
        self.down = False

    def answer(self, request: Request) -> Reply:
        super().answer(request)
        if self.down:
            return reply(503)
        if request.method == "PUT":
            self.kept = json_reply(request.json())
            return reply(204)
        return self.kept


def file() -> Path:
    return Path(live.WITNESS_URL)


def said() -> int | None:
    """The number in the witness of this host."""
    word = witness.read()
    return word.releases if word else None


def number() -> int:
    return House.read().releases


def put_back(releases: int) -> None:
    """As a backup has it: everything of the house is as it was then."""
    House.objects.update(releases=releases)


def sent_before() -> Issue:
    """An issue that went out, to three readers."""
    issue = frozen()
    drain()
    issue.refresh_from_db()
    assert issue.state == "sent"
    return issue


def another() -> Issue:
    """One more, frozen, to the same three."""
    issue = cast.approved(Newsletter.objects.get(), slug="second", title="The second")
    release.start(issue, actor="ana", now=True)
    drain(but="deliver")
    issue.refresh_from_db()
    assert issue.state == "sending"
    return issue


def another_host(settings: Settings, name: str) -> None:
    """From here on this process is a host with a witness of its own, and has not waited for anybody."""
    settings.WITNESS_URL = str(Path(live.WITNESS_URL).with_name(name))
    witness._alone_since = None


def told(event: str) -> int:
    return Notification.objects.filter(key__startswith=f"{event}:", channel="log").count()


# --- the number


def test_the_number_is_raised_here_and_there_before_the_first_byte(smtp: SmtpStandIn) -> None:
    sent_before()
    assert len(smtp.copies) == 3
    assert number() == said() == 2  # two senders had a turn
    assert json.loads(file().read_text())["identity"] == House.read().identity != ""


def test_a_database_that_never_sent_has_a_witness_that_says_so() -> None:
    witness.keep()
    assert (number(), said(), House.read().doubt) == (0, 0, "")


def test_each_turn_has_its_number() -> None:
    issue = frozen()
    for turn in (1, 2, 3):
        sending.deliver(issue.pk, 0)
        assert number() == said() == turn


def test_a_slow_writer_does_not_put_a_lower_number_back(tmp_path: Path) -> None:
    place = tmp_path / "slow"
    for releases in (5, 4):
        testimony.write(place, Word("a", releases), witness._fetch())
    assert testimony.read(place, witness._fetch()) == Word("a", 5)
    assert [path.name for path in tmp_path.glob("slow*")] == ["slow"]


def test_the_witness_is_asked_before_anything_else_of_a_tick() -> None:
    assert PARTS[0] is witness.keep


# --- a database that was put back


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_a_database_that_was_put_back_sends_nothing(smtp: SmtpStandIn, twice: bool) -> None:
    sent_before()
    another()
    put_back(1)
    drain(twice=twice)
    assert len(smtp.copies) == 3
    house = House.read()
    assert house.doubt.startswith("its number is 1, the witness has seen 2: it was put back")
    assert told("database_doubted") == 1
    assert [row.new for row in Transition.objects.of(Subject.HOUSE, 1)] == ["doubted"]


def test_one_of_mid_send_has_all_that_it_owes_pending_and_sends_none_of_it(
    smtp: SmtpStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    issue = sent_before()
    put_back(1)
    Issue.objects.update(state="sending", closed_at=None)
    EmailDelivery.objects.update(status="pending", sender_id=None, fence=None)
    witness.keep()
    recovery.wake()
    drain()
    assert (
        EmailDelivery.objects.filter(issue=issue, status="pending").count() == len(smtp.copies) == 3
    )
    call_command("house")
    shown = capsys.readouterr().out
    assert "3 pending" in shown and "not believed" in shown


def test_the_tick_notices_it_without_any_send() -> None:
    sent_before()
    put_back(0)
    witness.keep()
    assert House.read().is_held
    assert said() == 2  # nobody talks it down


def test_one_from_before_the_first_release_is_noticed_too() -> None:
    sent_before()
    House.objects.all().delete()
    witness.keep()
    assert House.read().doubt.startswith("its number is 0, the witness has seen 2")


def test_a_copy_that_was_made_in_mid_turn_is_noticed() -> None:
    sent_before()
    copied = number()
    witness.keep()  # the tick after the turn
    put_back(copied)
    witness.keep()
    assert House.read().is_held


def test_the_number_rests_where_nobody_sends() -> None:
    sent_before()
    Lease.objects.update(expires_at=database_now() - timedelta(minutes=5))
    witness.keep()
    assert number() == said() == 2


@pytest.mark.parametrize("patience", [0.0, 10.0])
def test_a_file_that_changed_long_after_its_log_was_replaced_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    """SQLite would read the log of the new file into yesterday's, the number with it."""
    database, log = tmp_path / "db.sqlite3", tmp_path / "db.sqlite3-wal"
    log.write_bytes(b"what a crash left")
    database.write_bytes(b"yesterday's")
    while database.stat().st_ctime <= log.stat().st_ctime:
        database.write_bytes(b"yesterday's")
    monkeypatch.setitem(connection.settings_dict, "NAME", str(database))
    monkeypatch.setattr(connection, "vendor", "sqlite")
    monkeypatch.setattr(witness, "REPLACED_SECONDS", patience)
    assert bool(witness._was_replaced()) == (patience == 0)


def test_the_witness_of_another_database_is_no_witness() -> None:
    sent_before()
    testimony.write(file(), Word("another", 1), witness._fetch(), over=True)
    witness.keep()
    assert "another database's" in House.read().doubt


def test_what_never_sent_leaves_its_witness_to_the_next() -> None:
    testimony.write(file(), Word("another", 0), witness._fetch())
    witness.keep()
    assert witness.read() == Word(House.read().identity, 0)


# --- confirmed


def test_an_operators_word_lets_it_go_on(smtp: SmtpStandIn) -> None:
    sent_before()
    issue = another()
    put_back(1)
    drain()
    house = witness.confirm(actor="ana", reason="the log was read")
    assert house and house.releases > 2 and said() == house.releases
    recovery.wake()
    drain_through_waits()
    issue.refresh_from_db()
    assert (issue.state, len(smtp.copies)) == ("sent", 6)
    lines = [(row.new, row.reason) for row in Transition.objects.of(Subject.HOUSE, 1)]
    assert lines[-1] == ("open", "confirmed: the log was read")


def test_what_nobody_doubts_is_not_confirmed() -> None:
    sent_before()
    assert witness.confirm(actor="ana", reason="just so") is None
    assert number() == 2


def test_the_other_hosts_take_the_word_of_one(settings: Settings) -> None:
    sent_before()
    here = live.WITNESS_URL
    another_host(settings, "oak")
    testimony.write(file(), Word(House.read().identity, 40), witness._fetch())
    settings.WITNESS_URL = here
    put_back(1)
    witness.keep()
    witness.confirm(actor="ana", reason="the log was read")
    another_host(settings, "oak")
    witness.keep()
    assert not House.read().doubt and said() == number()


# --- a crash between the two writes


def test_a_crash_after_the_databases_number_is_no_alarm(
    monkeypatch: pytest.MonkeyPatch, smtp: SmtpStandIn
) -> None:
    issue = frozen()
    with monkeypatch.context() as crash:
        crash.setattr(testimony, "_replace", lambda *_: 1 / 0)
        witness_before = said()
        with pytest.raises(ZeroDivisionError):
            sending.deliver(issue.pk, 0)
    assert (witness_before, smtp.copies) == (None, [])
    drain_through_waits()
    issue.refresh_from_db()
    assert (issue.state, House.read().doubt) == ("sent", "")


def test_nor_is_the_very_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen()
    witness.look()
    with monkeypatch.context() as crash, pytest.raises(ZeroDivisionError):
        crash.setattr(testimony, "_replace", lambda *_: 1 / 0)
        witness.testify()
    assert (number(), said()) == (1, 0)
    witness.keep()
    assert (House.read().doubt, said()) == ("", 1)


# --- a witness that cannot be asked


def test_without_a_word_from_it_nothing_is_sent_and_it_goes_on_by_itself(
    settings: Settings, smtp: SmtpStandIn, tmp_path: Path
) -> None:
    issue = frozen()
    (tmp_path / "a-file").touch()
    settings.WITNESS_URL = str(tmp_path / "a-file" / "witness")
    witness.keep()
    drain()
    assert smtp.copies == [] and told("witness_trouble") == 1
    row = Job.objects.filter(name="deliver").first()
    assert row is not None and row.state == JobState.QUEUED and "WitnessTrouble" in row.troubles
    settings.WITNESS_URL = str(tmp_path / "mended")
    drain_through_waits()
    issue.refresh_from_db()
    assert issue.state == "sent"


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\xff\xfe", b"[]", b"{}", b'{"identity": 1, "releases": 1}'),
        b"x" * 20_000,
        *(b'{"identity": "a"}', b'{"identity": "a", "releases": -1}'),
        *(b'{"identity": "a", "releases": true}', b"[" * 9000),
    ],
    ids=[
        "empty",
        "bytes",
        "list",
        "object",
        "number",
        "long",
        "half",
        "negative",
        "bool",
        "deep",
    ],
)
def test_what_is_no_witnesss_word_is_not_believed(data: bytes) -> None:
    sent_before()
    file().write_bytes(data)
    with pytest.raises(witness.WitnessTrouble, match=r"is WITNESS_URL right\?"):
        witness.look()
    assert House.read().doubt == "" and file().read_bytes() == data


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_never_ends_is_not_read(settings: Settings, tmp_path: Path, kind: str) -> None:
    settings.WITNESS_URL = str(tmp_path / "pipe") if kind == "pipe" else "/dev/zero"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(witness.WitnessTrouble, match="no regular file"):
        witness.look()


def test_a_word_without_a_name_is_replaced_by_ours() -> None:
    file().write_text('{"identity": "", "releases": 0}')
    witness.look()
    witness.testify()
    assert (number(), said()) == (1, 1)


# --- several hosts


def test_each_host_has_its_own_and_hears_of_the_others(settings: Settings) -> None:
    witness.keep()
    first = live.WITNESS_URL
    another_host(settings, "oak")
    witness.keep()
    sent_before()  # by oak
    settings.WITNESS_URL = first
    assert said() == 0
    witness.keep()
    assert said() == number() > 2
    put_back(1)
    witness.keep()
    assert House.read().is_held


def test_a_new_host_waits_until_one_that_lives_vouches(settings: Settings) -> None:
    witness.keep()
    sent_before()
    first = live.WITNESS_URL
    witness.keep()
    another_host(settings, "oak")
    with pytest.raises(witness.NotVouchedFor):
        witness.look()
    settings.WITNESS_URL = first
    witness.keep()
    settings.WITNESS_URL = str(Path(first).with_name("oak"))
    witness.keep()
    assert (House.read().doubt, said()) == ("", number())


def test_meanwhile_it_sends_nothing_and_tells_nobody(settings: Settings, smtp: SmtpStandIn) -> None:
    sent_before()
    witness.keep()
    issue = another()
    another_host(settings, "oak")
    witness.keep()
    with pytest.raises(witness.NotVouchedFor):
        sending.deliver(issue.pk, 0)
    assert len(smtp.copies) == 3 and told("witness_trouble") == 0


def test_a_new_host_without_a_living_one_is_a_database_that_was_put_back(
    settings: Settings,
) -> None:
    sent_before()
    witness.keep()
    old = database_now() - timedelta(minutes=10)
    Heartbeat.objects.update(at=old)  # they stand in the backup too
    another_host(settings, "oak")
    witness.keep()
    assert "no witness knows how far it had come" in House.read().doubt


def test_nobody_waits_for_a_vouch_for_ever(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other host's last beat is young, because the backup is: nobody beats after it."""
    sent_before()
    witness.keep()
    another_host(settings, "oak")
    monkeypatch.setattr(witness, "_alone_since", database_now() - witness.VOUCHED)
    Heartbeat.objects.filter(lane=WITNESS).update(at=database_now() - witness.VOUCHED * 2)
    Heartbeat.objects.create(work="oak", lane=TICK, at=database_now())
    witness.keep()
    assert House.read().is_held


def test_a_host_that_is_doubted_vouches_for_nobody(settings: Settings) -> None:
    sent_before()
    put_back(1)
    witness.keep()
    assert not Heartbeat.objects.filter(lane=WITNESS).exists()


# --- behind an address


def test_an_address_may_keep_it(settings: Settings, smtp: SmtpStandIn) -> None:
    keeper = Keeper()
    with keeper:
        settings.WITNESS_URL = keeper.url("/carteiro?token=a-secret")
        sent_before()
        assert len(smtp.copies) == 3 and said() == number()
        put_back(1)
        witness.keep()
        assert House.read().is_held


def test_an_address_that_leads_elsewhere_is_not_followed(settings: Settings) -> None:
    keeper = Keeper()
    keeper.kept = redirect("/elsewhere")
    with keeper:
        settings.WITNESS_URL = keeper.url("/carteiro")
        with pytest.raises(witness.WitnessTrouble, match="enter the address where they end"):
            witness.look()
        assert len(keeper.requests) == 1


def test_an_address_that_does_not_answer_lets_nothing_leave(
    settings: Settings, smtp: SmtpStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = Keeper()
    with keeper:
        settings.WITNESS_URL = keeper.url("/carteiro?token=a-secret")
        issue = frozen()
        witness.keep()
        keeper.down = True
        witness.keep()
        drain()
        assert smtp.copies == [] and told("witness_trouble") == 1
        notice = Notification.objects.get(key__startswith="witness_trouble", channel="log").notice
        assert "status 503" in notice["lines"][0]
        assert "a-secret" not in f"{notice}{caplog.text}{list(Job.objects.values('note'))}"
        keeper.down = False
        drain_through_waits()
        issue.refresh_from_db()
        assert issue.state == "sent"


# --- what a doubt holds


def doubt() -> None:
    House.objects.update_or_create(pk=1, defaults={"doubt": "old", "doubted_at": database_now()})


def test_a_person_who_waits_for_a_confirmation_waits_while_it_is_doubted(
    smtp: SmtpStandIn,
) -> None:
    subscription = cast.readers(cast.newsletter(), 1)[0]
    Subscription.objects.filter(pk=subscription.pk).update(state="pending")
    transactional.request_confirmation(subscription)
    doubt()
    outcome = transactional.deliver(Job.objects.get(name="mail").args["mail_id"])
    assert isinstance(outcome, Wait) and smtp.copies == []


def test_no_step_goes_on_and_nothing_is_lost() -> None:
    weekly = cast.newsletter()
    cast.readers(weekly, 1)
    issue = cast.approved(weekly)
    release.start(issue, actor="ana", now=True)
    doubt()
    drain(twice=True)
    issue.refresh_from_db()
    assert issue.state == "awaiting_podcast" and recovery.recover()["woken"] == 0
    witness.confirm(actor="ana", reason="a test")
    assert recovery.recover()["woken"] == 1
    drain_through_waits()
    issue.refresh_from_db()
    assert issue.state == "sent", history(issue)


def test_a_turn_that_comes_too_late_says_why() -> None:
    issue = frozen()
    doubt()
    assert sending.deliver(issue.pk, 0) == Done("nothing leaves: old")
