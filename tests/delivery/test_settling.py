"""What settles an unknown row: evidence, an operator's word, a relay's log, a replay under the same key."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F
from pytest_django import Settings

from delivery import channel, jobs, release, replaying, sending, settling, witness
from delivery.copies import Copies, read_rows
from delivery.errors import BreakerOpen
from delivery.models import CompiledIssue, EmailDelivery, House, Job
from delivery.outcome import Done, Wait
from newsletter.models import Issue, Refused, Suppression, Transition, database_now
from newsletter.models.transition import Subject
from tests.drain import drain, frozen, history, hurry, row_of, statuses
from tests.stand_ins.http import drop, json_reply, reply
from tests.stand_ins.providers import ProviderStandIn
from tests.stand_ins.smtp import SmtpStandIn

pytestmark = pytest.mark.django_db


@pytest.fixture
def issue() -> Issue:
    """bob, carla and davi, all of unknown fate."""
    made = frozen(3)
    put("unknown")
    return made


def put(status: str, **values: object) -> None:
    now = database_now()
    EmailDelivery.objects.update(
        status=status, attempt=1, sending_at=now, settled_at=now, reason="sender_lost", **values
    )


def everybody() -> list[int]:
    return list(EmailDelivery.objects.values_list("pk", flat=True))


def told(name: str) -> list[tuple[str, str, str, str]]:
    rows = Transition.objects.of(Subject.DELIVERY, row_of(name).pk)
    return [(row.old, row.new, row.reason, row.actor) for row in rows]


def close(issue: Issue) -> None:
    Issue.objects.filter(pk=issue.pk).update(state="sent")
    Job.objects.all().delete()


@pytest.mark.parametrize("status", ["unknown", "failed"])
def test_evidence_of_acceptance_makes_it_sent(issue: Issue, status: str) -> None:
    put(status)
    assert settling.prove(everybody(), sent=True, source="postfix log", detail="250 ok") == 3
    assert set(statuses().values()) == {"sent"}
    assert told("bob") == [(status, "sent", "postfix log: 250 ok", "postfix log")]


def test_evidence_of_a_refusal_makes_it_failed(issue: Issue) -> None:
    assert (
        settling.prove([row_of("bob").pk], sent=False, source="postfix log", detail="550 no") == 1
    )
    assert statuses() == {"bob": "failed", "carla": "unknown", "davi": "unknown"}
    assert (row_of("bob").reason, row_of("bob").reply) == ("postfix log", "550 no")


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("status", ["pending", "sent", "skipped"])
def test_evidence_moves_nothing_that_the_table_does_not_let_move(
    issue: Issue, status: str, sent: bool
) -> None:
    put(status)
    assert settling.prove(everybody(), sent=sent, source="postfix log") == 0
    assert set(statuses().values()) == {status}


def test_a_refusal_does_not_touch_what_failed_for_another_reason(issue: Issue) -> None:
    put("failed")
    assert settling.prove(everybody(), sent=False, source="postfix log") == 0
    assert row_of("bob").reason == "sender_lost"


def test_the_evidence_is_kept_without_addresses(issue: Issue) -> None:
    settling.prove(everybody(), sent=True, source="x", detail="<bob@example.org>: fine")
    assert row_of("bob").reply == "<<address>>: fine"


@pytest.mark.parametrize("settle", [settling.mark_sent, settling.mark_failed, settling.resend])
def test_an_operators_word_needs_a_reason(issue: Issue, settle: object) -> None:
    with pytest.raises(Refused, match="Say why"):
        settle(everybody(), actor="ana", reason="  ")  # type: ignore[operator]
    assert set(statuses().values()) == {"unknown"}


@pytest.mark.parametrize(
    ("settle", "status"), [(settling.mark_sent, "sent"), (settling.mark_failed, "failed")]
)
def test_an_operators_word_settles_and_is_recorded(
    issue: Issue, settle: object, status: str
) -> None:
    ids = [row_of(name).pk for name in ("bob", "carla")]
    assert settle(ids, actor="ana", reason="the provider said so") == 2  # type: ignore[operator]
    assert settle(ids, actor="ana", reason="the provider said so") == 0  # type: ignore[operator]
    assert [row_of(name).status for name in ("bob", "carla", "davi")] == [status, status, "unknown"]
    why = "an operator's word: the provider said so"
    assert told("bob") == [("unknown", status, why, "ana")]
    assert history(issue)[-1] == f"2 of unknown fate marked {status}: the provider said so"


def test_a_resend_makes_it_owed_again(issue: Issue) -> None:
    put("unknown", attempts_spent=4, dot_refusals=3, next_attempt_at=database_now())
    assert settling.resend([row_of("bob").pk], actor="ana", reason="she called") == 1
    row = row_of("bob")
    assert (row.status, row.resend_no, row.attempts_spent, row.dot_refusals) == ("pending", 1, 0, 0)
    assert row.resent_at and row.next_attempt_at is None and row.settled_at is None
    assert told("bob") == [("unknown", "pending", "resent by an operator: she called", "ana")]
    assert history(issue)[-1] == "1 of unknown fate resent: she called"


def test_a_resend_twice_is_one(issue: Issue) -> None:
    ids = everybody()
    assert settling.resend(ids + ids, actor="ana", reason="why not") == 3
    assert settling.resend(ids, actor="ana", reason="why not") == 0
    assert row_of("bob").resend_no == 1


@pytest.mark.parametrize("status", ["pending", "sending", "sent", "failed", "skipped"])
def test_only_what_is_unknown_is_resent(issue: Issue, status: str) -> None:
    put(status, fence=1)
    assert settling.resend(everybody(), actor="ana", reason="why not") == 0


def test_nothing_of_a_cancelled_issue_is_resent(issue: Issue) -> None:
    release.cancel(issue, actor="ana")
    with pytest.raises(Refused, match="cancelled"):
        settling.resend(everybody(), actor="ana", reason="why not")
    assert set(statuses().values()) == {"unknown"}


@pytest.mark.parametrize("closed", [False, True])
def test_a_resend_sends_one_more_copy_also_after_the_close(
    issue: Issue, closed: bool, settings: Settings
) -> None:
    if closed:
        close(issue)
    with SmtpStandIn() as server:
        settings.EMAIL_URL = server.url
        settling.resend([row_of("bob").pk], actor="ana", reason="she called")
        drain()
        assert server.accepted() == {"bob@example.org": 1}
    issue.refresh_from_db()
    assert (row_of("bob").status, issue.state) == ("sent", "sent")
    assert sending.books(issue)["balanced"]


def test_who_said_no_since_gets_no_second_copy(issue: Issue, settings: Settings) -> None:
    row = row_of("bob")
    assert row.subscription
    row.subscription.unsubscribe(actor="bob", reason="enough")
    with SmtpStandIn() as server:
        settings.EMAIL_URL = server.url
        settling.resend([row.pk], actor="ana", reason="why not")
        drain()
        assert not server.accepted()
    assert row_of("bob").status == "skipped"


def test_settling_many_takes_batches(issue: Issue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "BATCH", 2)
    assert settling.mark_failed(everybody(), actor="ana", reason="a fire") == 3
    assert history(issue)[-1] == "3 of unknown fate marked failed: a fire"


def test_the_books_balance_whatever_is_settled(issue: Issue) -> None:
    bob, carla, davi = everybody()
    settling.prove([bob], sent=True, source="x")
    settling.prove([carla], sent=False, source="x")
    settling.resend([davi], actor="ana", reason="x")
    assert sending.books(issue)["balanced"]


# --- the relay's log


def relay_log(issue: Issue, **ends: str) -> bytes:
    """Lines of Postfix for the readers named; an end is the rest of the delivery agent's line."""
    copies = Copies(CompiledIssue.objects.get(pk=issue.pk))
    lines = []
    for number, (who, end) in enumerate(ends.items()):
        queue_id, name = f"6F8C8A1016{number}", copies.message_id(row_of(who).pk)
        lines += [
            f"smtpd[3]: {queue_id}: client=localhost[127.0.0.1]",
            f"cleanup[4]: {queue_id}: message-id={name}",
        ]
        if end:
            lines += [
                f"qmgr[5]: {queue_id}: from=<ana@example.org>, size=9, nrcpt=1 (queue active)",
                f"smtp[6]: {queue_id}: to=<{who}@EXAMPLE.org>, relay=mx.example.net, dsn=2.0.0, {end}",
            ]
    return "".join(f"Nov 22 11:08:56 relay postfix/{line}\n" for line in lines).encode()


def settle_by(tmp_path: Path, log: bytes, *options: str) -> str:
    file, out = tmp_path / "mail.log", io.StringIO()
    file.write_bytes(log)
    call_command("settle_unknowns", "first-issue", "--postfix-log", str(file), *options, stdout=out)
    return " ".join(out.getvalue().split())


SENT, BOUNCED, DEFERRED = "status=sent (250 ok)", "status=bounced (550 no)", "status=deferred (451)"


def test_the_relays_log_settles_what_it_tells(issue: Issue, tmp_path: Path) -> None:
    said = settle_by(tmp_path, relay_log(issue, bob=SENT, carla=BOUNCED, davi=DEFERRED))
    assert said == (
        "unknown before 3 settled sent 1 settled failed 1 still deferred 1 without a trace 0"
    )
    assert statuses() == {"bob": "sent", "carla": "failed", "davi": "unknown"}
    assert history(issue)[-1] == "settled by the postfix log: 1 sent, 1 failed, of 3 unknown"


def test_a_second_reading_finds_the_rest(issue: Issue, tmp_path: Path) -> None:
    settle_by(tmp_path, relay_log(issue, bob=SENT, davi=DEFERRED))
    before = history(issue)
    assert "unknown before 2 settled sent 0" in settle_by(tmp_path, relay_log(issue, bob=SENT))
    assert history(issue) == before


def test_a_dry_run_changes_nothing(issue: Issue, tmp_path: Path) -> None:
    said = settle_by(tmp_path, relay_log(issue, bob=SENT, carla=BOUNCED), "--dry-run")
    assert "settled sent 1 settled failed 1" in said and said.endswith("nothing was changed.")
    assert set(statuses().values()) == {"unknown"}


def test_what_was_cut_off_before_its_end_is_no_evidence(issue: Issue, tmp_path: Path) -> None:
    assert "without a trace 3" in settle_by(tmp_path, relay_log(issue, bob=""))
    assert row_of("bob").status == "unknown"


def test_a_line_for_another_recipient_is_no_evidence(issue: Issue, tmp_path: Path) -> None:
    log = relay_log(issue, bob=SENT).replace(b"bob@EXAMPLE.org", b"eve@example.org")
    settle_by(tmp_path, log)
    assert row_of("bob").status == "unknown"


def test_the_bounce_of_a_first_copy_is_not_taken_for_the_resent_ones(
    issue: Issue, tmp_path: Path
) -> None:
    EmailDelivery.objects.update(resend_no=1)
    first = relay_log(issue, bob=BOUNCED)
    assert "without a trace 3" in settle_by(tmp_path, first)
    second = first.replace(b"6F8C8A10160", b"7A8C8A10160")
    assert "settled failed 1" in settle_by(tmp_path, first + second)


def test_a_passage_that_broke_off_does_not_stand_for_a_copy(issue: Issue, tmp_path: Path) -> None:
    EmailDelivery.objects.update(resend_no=1)
    broken_off, bounced = relay_log(issue, bob=""), relay_log(issue, bob=BOUNCED)
    second = bounced.replace(b"6F8C8A10160", b"7A8C8A10160")
    assert "settled failed 0" in settle_by(tmp_path, broken_off + second)
    assert row_of("bob").status == "unknown"


def test_a_refusal_of_the_copy_before_a_resend_proves_nothing(issue: Issue) -> None:
    EmailDelivery.objects.update(resend_no=1)
    bob = [row_of("bob").pk]
    assert settling.prove(bob, sent=False, source="x", resend_no=0) == 0
    assert settling.prove(bob, sent=False, source="x", resend_no=1) == 1
    assert settling.prove(bob, sent=True, source="x", resend_no=0) == 1


def test_only_unknown_rows_are_settled(issue: Issue, tmp_path: Path) -> None:
    EmailDelivery.objects.filter(pk=row_of("bob").pk).update(status="failed")
    said = settle_by(tmp_path, relay_log(issue, bob=SENT, carla=SENT))
    assert said.startswith("unknown before 2 settled sent 1")
    assert row_of("bob").status == "failed"


def test_an_erased_reader_is_known_again(issue: Issue, tmp_path: Path) -> None:
    log = relay_log(issue, bob=SENT)
    pk = row_of("bob").pk
    EmailDelivery.objects.filter(pk=pk).update(address="", name="")
    settle_by(tmp_path, log)
    assert EmailDelivery.objects.get(pk=pk).status == "sent"


def test_rotated_and_packed_files_are_read_in_the_order_given(issue: Issue, tmp_path: Path) -> None:
    old, new = relay_log(issue, bob=SENT).split(b"smtp[6]", 1)
    (tmp_path / "mail.log.1.gz").write_bytes(gzip.compress(old.rpartition(b"\n")[0] + b"\n"))
    options = ("--postfix-log", str(tmp_path / "mail.log"))
    (tmp_path / "mail.log").write_bytes(b"Nov 22 11:08:56 relay postfix/smtp[6]" + new)
    out = io.StringIO()
    first = ("--postfix-log", str(tmp_path / "mail.log.1.gz"))
    call_command("settle_unknowns", "first-issue", *first, *options, stdout=out)
    assert row_of("bob").status == "sent"


BAD_LOGS = {
    "empty": (b"", "no Postfix log"),
    "binary": (bytes(range(256)) * 500, "no Postfix log"),
    "prose": (b"Dear diary,\n" * 100, "no Postfix log"),
    "another service": (b"Nov 22 11:08:56 relay sshd[1]: hello\n" * 9, "no Postfix log"),
    "damaged": (gzip.compress(b"x" * 1000)[:-12], "is damaged"),
    "packed badly": (b"\x1f\x8bno gzip at all", "is damaged"),
    "another issue": (
        b"Nov 22 11:08:56 relay postfix/cleanup[4]: 6F8C8A10160: message-id=<1.abcdef0123456789@example.net>\n",
        "none names a mail of weekly/first-issue",
    ),
}


@pytest.mark.parametrize("kind", sorted(BAD_LOGS))
def test_a_file_that_is_no_log_of_this_issue_is_refused(
    issue: Issue, tmp_path: Path, kind: str
) -> None:
    log, why = BAD_LOGS[kind]
    with pytest.raises(CommandError, match=why) as refused:
        settle_by(tmp_path, log)
    assert refused.value.returncode == 2
    assert set(statuses().values()) == {"unknown"}


def test_a_file_that_cannot_be_read_is_refused(issue: Issue, tmp_path: Path) -> None:
    for path in (tmp_path / "missing.log", tmp_path):
        with pytest.raises(CommandError, match="cannot be read") as refused:
            call_command("settle_unknowns", "first-issue", "--postfix-log", str(path))
        assert refused.value.returncode == 2


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_no_regular_file_is_refused_and_not_opened(
    issue: Issue, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "fifo" if kind == "fifo" else Path("/dev/zero")
    if kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(CommandError, match="it is no regular file") as refused:
        call_command("settle_unknowns", "first-issue", "--postfix-log", str(path))
    assert refused.value.returncode == 2


def test_an_issue_that_was_never_sent_has_nothing_to_settle(tmp_path: Path) -> None:
    made = frozen(1)
    CompiledIssue.objects.all().delete()
    with pytest.raises(CommandError, match="was never sent"):
        settle_by(tmp_path, b"")
    assert made.audience == 1


# --- the same key once more


@pytest.fixture
def api(settings: Settings) -> Iterator[ProviderStandIn]:
    with ProviderStandIn("resend") as api:
        settings.EMAIL_URL = api.url
        yield api


def replay(issue: Issue) -> None:
    """The tick finds them, and the job runs."""
    replaying.enqueue_replays()
    hurry("replay_unknowns")
    drain(but="deliver")


def test_a_copy_that_was_taken_is_found_out_and_not_sent_twice(
    settings: Settings, api: ProviderStandIn
) -> None:
    api.on(drop(), accepted=True, recipient="bob@example.org", times=1)
    issue = frozen(3)
    drain()
    assert row_of("bob").status == "unknown"
    replay(issue)
    row = row_of("bob")
    assert (row.status, row.reason) == ("sent", "same-key replay")
    assert row.provider_message_id == next(a.id for a in api.accepted if "bob" in a.recipient)
    assert set(api.copies().values()) == {1}


def test_a_copy_that_was_never_taken_is_sent_by_the_replay(
    issue: Issue, api: ProviderStandIn
) -> None:
    replay(issue)
    assert set(statuses().values()) == {"sent"}
    assert set(api.copies().values()) == {1}
    keys = [copies.key for copies in api.accepted]
    sent = Copies(CompiledIssue.objects.get(pk=issue.pk))
    assert keys == [sent.envelope(row).key for row in read_rows(everybody())]


def test_what_gets_no_clear_answer_stays_unknown_and_is_asked_again_later(
    issue: Issue, api: ProviderStandIn
) -> None:
    api.on(reply(500), recipient="bob@example.org", times=1)
    assert isinstance(replaying.replay(issue.pk), Wait)
    assert statuses() == {"bob": "unknown", "carla": "sent", "davi": "sent"}
    assert replaying.replay(issue.pk) == Done("1 settled", items=1)
    assert set(api.copies().values()) == {1}


def test_a_refusal_of_ours_settles_nothing(issue: Issue, api: ProviderStandIn) -> None:
    api.on(json_reply({"name": "validation_error", "message": "no"}, 403))
    assert isinstance(replaying.replay(issue.pk), Wait)
    assert set(statuses().values()) == {"unknown"}
    assert len(api.requests) == 1  # the others would hear the same


def test_a_provider_that_is_busy_is_left_alone(issue: Issue, api: ProviderStandIn) -> None:
    api.on(json_reply({"name": "rate_limit_exceeded"}, 429))
    for _ in range(5):
        replaying.replay(issue.pk)
    assert len(api.requests) == 5
    with pytest.raises(BreakerOpen):
        replaying.replay(issue.pk)
    assert set(statuses().values()) == {"unknown"}


def test_past_the_providers_time_nothing_is_handed_over(issue: Issue, api: ProviderStandIn) -> None:
    old = timedelta(seconds=channel.replays()) - timedelta(minutes=10)
    EmailDelivery.objects.update(sending_at=F("sending_at") - old)
    assert replaying.enqueue_replays() == 0
    assert replaying.replay(issue.pk) == Done("0 settled", items=0)
    assert not api.requests


def hinder(hindrance: str, issue: Issue) -> None:
    row = row_of("bob")
    if hindrance == "pause":
        issue.pause(reason="lunch", actor="ana")
    elif hindrance == "cancel":
        release.cancel(issue, actor="ana")
    elif hindrance == "house":
        House.objects.update_or_create(pk=1, defaults={"paused_at": database_now()})
    elif hindrance == "suppressed":
        Suppression.objects.add(row.address_key, "operator")
    elif row.subscription:
        row.subscription.unsubscribe(actor="bob", reason="enough")


@pytest.mark.parametrize("hindrance", ["pause", "cancel", "house", "unsubscribed", "suppressed"])
def test_what_may_not_be_started_is_not_replayed(
    issue: Issue, api: ProviderStandIn, hindrance: str
) -> None:
    EmailDelivery.objects.exclude(pk=row_of("bob").pk).update(status="sent")
    hinder(hindrance, issue)
    assert replaying.enqueue_replays() == 0
    replaying.replay(issue.pk)
    assert not api.requests
    assert row_of("bob").status == "unknown"


def test_a_closed_issue_is_replayed_too(issue: Issue, api: ProviderStandIn) -> None:
    close(issue)
    replay(issue)
    assert set(statuses().values()) == {"sent"}


def test_a_way_out_without_keys_replays_nothing(issue: Issue, settings: Settings) -> None:
    with SmtpStandIn() as server:
        settings.EMAIL_URL = server.url
        assert replaying.enqueue_replays() == 0
        assert replaying.replay(issue.pk) == Done("this way out knows no keys")
        assert not server.copies


def test_the_rate_holds_for_replays(issue: Issue, api: ProviderStandIn, settings: Settings) -> None:
    settings.DELIVERY_RATE, settings.SENDER_SECONDS = 0.01, 1
    replaying.replay(issue.pk)
    assert len(api.requests) <= 1


def test_a_database_that_was_put_back_replays_nothing(
    issue: Issue, api: ProviderStandIn, settings: Settings
) -> None:
    House.objects.create(pk=1, identity="bb", releases=3)
    Path(settings.WITNESS_URL).write_text('{"identity": "bb", "releases": 9}')
    outcome = replaying.replay(issue.pk)
    assert isinstance(outcome, Wait) and "put back" in outcome.note
    assert not api.requests


def test_a_replay_waits_for_a_witness_that_cannot_be_read(
    issue: Issue, api: ProviderStandIn, settings: Settings
) -> None:
    Path(settings.WITNESS_URL).write_text("nonsense")
    replay(issue)
    assert not api.requests
    assert Job.objects.get(name="replay_unknowns").state == "queued"
    Path(settings.WITNESS_URL).unlink()
    replay(issue)
    assert set(statuses().values()) == {"sent"}


def test_a_replay_raises_the_number_that_the_witness_has(
    issue: Issue, api: ProviderStandIn
) -> None:
    replaying.replay(issue.pk)
    said = witness.read()
    assert said and said.releases == House.read().releases == 1


def test_a_round_is_bounded(
    issue: Issue, api: ProviderStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "ROUND", 2)
    assert isinstance(replaying.replay(issue.pk), Wait)
    assert len(api.requests) == 2


def test_the_tick_looks_for_them_each_minute(issue: Issue, api: ProviderStandIn) -> None:
    Job.objects.all().delete()
    jobs.tick()
    jobs.tick()
    assert Job.objects.unfinished().filter(name="replay_unknowns").count() == 1
