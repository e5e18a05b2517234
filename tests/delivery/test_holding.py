"""Everything is paused, resumed, cancelled at once; who did it, and why, stands everywhere."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import time, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django import Settings

from delivery import health, holding, metrics, recovery, release, sending, steps, transactional
from delivery.models import House, Job, Notification, Occurrence
from delivery.outcome import Wait
from newsletter.models import Issue, Refused, Subscription, Transition, database_now
from newsletter.models.transition import Subject
from tests import cast
from tests.drain import drain, drain_through_waits, frozen, moves, statuses
from tests.stand_ins.smtp import SmtpStandIn

pytestmark = pytest.mark.django_db
WHY = "the blog was broken into"


@pytest.fixture(autouse=True)
def smtp(settings: Settings) -> Iterator[SmtpStandIn]:
    with SmtpStandIn() as server:
        settings.EMAIL_URL = server.url
        settings.SMTP_TIMEOUT_SECONDS = 2
        yield server


def pause() -> bool:
    return holding.pause(actor="ana", reason=WHY)


def run(*args: str) -> str:
    out = io.StringIO()
    call_command(*args, stdout=out)
    return out.getvalue()


def refused(*args: str) -> str:
    with pytest.raises(CommandError) as refusal:
        run(*args)
    assert refusal.value.returncode == 2
    return str(refusal.value)


def events() -> list[str]:
    return [str(row.notice["event"]) for row in Notification.objects.filter(channel="log")]


# --- what a pause does


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_nothing_leaves_until_it_is_resumed(smtp: SmtpStandIn, twice: bool) -> None:
    issue = frozen()
    assert pause()
    drain(twice=twice)
    assert smtp.copies == [] and set(statuses().values()) == {"pending"}
    assert holding.resume(actor="bob")
    drain(twice=twice)
    issue.refresh_from_db()
    assert (issue.state, len(smtp.copies)) == ("sent", 3)


def test_a_resume_wakes_every_run_wherever_it_stands() -> None:
    weekly = cast.newsletter()
    cast.readers(weekly, 2)
    issue = cast.approved(weekly)
    release.start(issue, actor="ana", now=True)
    pause()
    drain()
    assert moves(issue) == ["approved", "awaiting_podcast"]
    assert recovery.recover()["woken"] == 0
    holding.resume(actor="ana")
    drain_through_waits()
    issue.refresh_from_db()
    assert issue.state == "sent"


def test_it_is_told_once_and_stands_in_history() -> None:
    assert pause() and not pause()
    assert holding.resume(actor="bob", reason="mended") and not holding.resume(actor="bob")
    lines = [(row.old, row.new, row.reason, row.actor) for row in _history()]
    assert lines == [
        ("open", "paused", f"paused: {WHY}", "ana"),
        ("paused", "open", "resumed: mended", "bob"),
    ]
    assert events() == ["everything_paused", "everything_resumed"]


def test_a_doubt_stays_when_the_pause_is_lifted(smtp: SmtpStandIn) -> None:
    frozen()
    pause()
    House.objects.update(doubt="old", doubted_at=database_now())
    holding.resume(actor="ana")
    drain()
    assert House.read().standing == "doubted" and smtp.copies == []


def test_no_release_starts_by_hand() -> None:
    issue = cast.approved(cast.newsletter())
    pause()
    with pytest.raises(Refused, match=WHY):
        release.start(issue, actor="ana", now=True)


def test_nor_by_the_hour_which_is_told_and_made_up_for_by_the_sweep() -> None:
    weekly = cast.newsletter(release_time=time.min, too_late_time=time.max, zone="UTC")
    now = database_now()
    weekly.release_weekday = now.weekday()
    weekly.save()
    issue = cast.approved(weekly)
    pause()
    due = weekly.release_at(weekly.today(now))
    occurrence = Occurrence.objects.create(schedule="release", newsletter=weekly, due_utc=due)
    assert release.run_occurrence(occurrence) == "everything is held: not started"
    assert release.sweep(weekly, now) == ["left The Weekly alone: everything is held"]
    assert events() == ["everything_paused", "release_held"]
    holding.resume(actor="ana")
    assert release.sweep(weekly, now) == [f"started {issue.label}"]


def test_what_follows_a_run_waits() -> None:
    pause()
    for body in (steps.update_post, steps.remove_post, steps.late_podcast):
        assert isinstance(body(1), Wait)


def test_a_person_who_waits_for_a_confirmation_gets_it(smtp: SmtpStandIn) -> None:
    subscription = cast.readers(cast.newsletter(), 1)[0]
    Subscription.objects.filter(pk=subscription.pk).update(state="pending")
    transactional.request_confirmation(subscription)
    pause()
    drain()
    assert len(smtp.copies) == 1


def test_notices_still_go_out(settings: Settings, smtp: SmtpStandIn) -> None:
    settings.NOTIFY_EMAIL = ("ops@example.org",)
    pause()
    drain()
    assert [copy.rcpt_to for copy in smtp.copies] == [("ops@example.org",)]


def test_everything_under_way_is_cancelled(smtp: SmtpStandIn) -> None:
    sending_one = frozen()
    drafted = cast.issue(sending_one.newsletter, slug="a-draft")
    said = holding.cancel(actor="ana", reason=WHY)
    assert said == [f"{sending_one.label} is cancelled; 3 copies were not sent."]
    drain()
    assert smtp.copies == [] and set(statuses().values()) == {"skipped"}
    drafted.refresh_from_db()
    assert drafted.state == "draft" and holding.cancel(actor="ana", reason=WHY) == []


def test_machines_are_told() -> None:
    assert health.readiness()["held"] == "ok"
    pause()
    assert health.readiness()["held"] == "paused"
    assert 'carteiro_held{why="paused"} 1.0' in metrics.exposition().decode()
    House.objects.update(doubt="old")
    assert health.readiness()["held"] == "doubted"


# --- the command


def test_the_command_pauses_shows_and_resumes() -> None:
    assert "Nothing is held." in run("house")
    assert "--reason" in refused("house", "pause")
    assert run("house", "pause", "--reason", WHY).startswith("Everything is paused.")
    assert WHY in run("house")
    assert "already" in refused("house", "pause", "--reason", WHY)
    assert run("house", "resume") == "All goes on.\n"
    assert "not paused" in refused("house", "resume")


def test_the_command_cancels_only_when_that_is_said_twice() -> None:
    issue = frozen()
    assert issue.label in refused("house", "cancel", "--reason", WHY)
    assert "is cancelled" in run("house", "cancel", "--reason", WHY, "--yes")
    assert "Nothing is under way." in refused("house", "cancel", "--reason", WHY, "--yes")


def test_the_command_speaks_json() -> None:
    issue = frozen()
    pause()
    said: dict[str, Any] = json.loads(run("house", "--json"))
    assert (said["standing"], said["paused_reason"], said["number"]) == ("paused", WHY, 0)
    assert said["under_way"][0] == sending.books(issue)


def test_a_witness_that_cannot_be_asked_stands_in_its_place(settings: Settings) -> None:
    settings.WITNESS_URL = "/dev/null/witness"
    assert "cannot be read" in run("house")


def test_a_doubted_database_is_confirmed_in_two_steps(smtp: SmtpStandIn) -> None:
    issue = frozen()
    assert "Nobody doubts" in refused("confirm_database", "--yes", "--reason", "so")
    House.objects.update_or_create(
        pk=1, defaults={"doubt": "it is old", "doubted_at": database_now()}
    )
    out = io.StringIO()
    with pytest.raises(CommandError, match="--yes --reason"):
        call_command("confirm_database", stdout=out)
    for words in ("it is old", issue.label, "3 pending", "second copy"):
        assert words in out.getvalue()
    assert "--reason" in refused("confirm_database", "--yes")
    assert "confirmed" in run("confirm_database", "--yes", "--reason", "the log was read")
    drain_through_waits()
    assert len(smtp.copies) == 3


# --- the pages


def test_every_page_of_the_admin_says_that_everything_is_held(editing: Client) -> None:
    url = "/admin/newsletter/issue/"
    assert WHY not in editing.get(url).content.decode()
    pause()
    assert f"Everything is paused by ana since {database_now():%Y-%m-%d}" in _text(editing, url)
    House.objects.update(doubt="it is old", doubted_at=database_now())
    assert "this database is not believed" in _text(editing, url)
    assert WHY not in _text(Client(), "/admin/login/")


def test_the_operations_page_pauses_and_resumes(editing: Client) -> None:
    said = editing.post("/admin/operations/house/pause/", {"reason": ""}, follow=True)
    assert "Say why" in said.content.decode() and not House.read().is_held
    editing.post("/admin/operations/house/pause/", {"reason": WHY})
    house = House.read()
    assert (house.paused_by, house.paused_reason) == ("ana", WHY)
    assert "Resume everything" in _text(editing, "/admin/operations/")
    editing.post("/admin/operations/house/resume/")
    assert not House.read().is_held and "Pause everything" in _text(editing, "/admin/operations/")
    assert editing.post("/admin/operations/house/burn/").status_code == 404
    assert editing.get("/admin/operations/house/pause/").status_code == 405


def test_only_who_may_hold_the_house_sees_the_buttons_and_uses_them(client: Client) -> None:
    client.force_login(cast.editor("bob", "view_job", "change_job"))
    assert "Pause everything" not in _text(client, "/admin/operations/")
    answer = client.post("/admin/operations/house/pause/", {"reason": WHY})
    assert answer.status_code == 403 and not House.read().is_held


def test_a_pause_without_a_page_of_its_own_leads_home(client: Client) -> None:
    client.force_login(cast.editor("bob", "hold_house"))
    answer = client.post("/admin/operations/house/pause/", {"reason": WHY})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")


def test_a_pause_is_no_alarm_of_lateness() -> None:
    issue = frozen()
    pause()
    drain()
    assert not Job.objects.due(database_now() + timedelta(minutes=5)).filter(issue_id=issue.pk)
    assert Issue.objects.get(pk=issue.pk).paused_at is None


def _history() -> Any:
    return Transition.objects.of(Subject.HOUSE, 1)


def _text(client: Client, url: str) -> str:
    return client.get(url).content.decode()
