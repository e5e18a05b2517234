"""The operations page, the dead letters in the admin, and the command `lanes`."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from delivery import queue
from delivery.models import (
    Alert,
    CircuitBreaker,
    Heartbeat,
    Job,
    JobTally,
    LanePause,
    Lease,
    TransactionalMail,
)
from delivery.models.heartbeat import TICK
from delivery.models.job import Lane
from delivery.queue.registry import REGISTRY
from delivery.templatetags import operations as shown
from delivery.views.charts import chart
from newsletter.models import Issue, Transition, database_now
from newsletter.models.transition import Subject
from tests import cast

pytestmark = pytest.mark.django_db

PAGE = "/admin/operations/"
MOST_QUERIES = 45  # two dozen, and one for each name of a job


def a_job(key: str = "report:1", state: str = "queued", **over: Any) -> Job:
    """A job of the house, due now."""
    now = database_now()
    values: dict[str, Any] = {"name": "report", "args": {"id": 1}, "due_at": now}
    if state == "dead":
        values |= {"note": "ValueError: it is odd", "error": "in report.py", "finished_at": now}
    if state == "running":
        values |= {"token": "t", "lease_until": now + timedelta(seconds=30), "started_at": now}
    return Job.objects.create(key=key, state=state, **{**values, **over})


def workers() -> None:
    """A `work` that lives, in every lane, and its tick."""
    now = database_now()
    for lane in Lane.values:
        Heartbeat.objects.create(work="post-1:77", lane=lane, at=now)
    Heartbeat.objects.create(work="post-1", lane=TICK, at=now, monotonic=1.0, boot="b")


def words(page: str) -> str:
    """What is to be read in it."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def section(client: Client, name: str) -> str:
    """One section's words."""
    page = client.get(PAGE).content.decode()
    found = re.search(rf'<section id="{name}".*?</section>', page, re.DOTALL)
    assert found, f"there is no section {name}"
    return words(found[0])


def press(client: Client, path: str, data: dict[str, Any]) -> str:
    """Post a form; what is told then."""
    page = client.post(path, data, follow=True).content.decode()
    found = re.search(r'<ul class="messagelist">.*?</ul>', page, re.DOTALL)
    return words(found[0]) if found else ""


def act(client: Client, **data: Any) -> str:
    """Press a button for dead letters; what is told."""
    return press(client, f"{PAGE}dead/", data)


def hold(client: Client, lane: str, action: str, reason: str = "") -> str:
    """Press a lane's button; what is told."""
    return press(client, f"{PAGE}lanes/{lane}/{action}/", {"reason": reason})


def state(row: Job) -> str:
    return Job.objects.get(pk=row.pk).state


def history(row: Job) -> list[tuple[str, str]]:
    """(new state, actor), in order."""
    rows = Transition.objects.of(Subject.JOB, row.pk)
    return [(found.new, found.actor) for found in rows]


# The page


def test_it_needs_somebody_signed_in(client: Client) -> None:
    answer = client.get(PAGE)
    assert answer.status_code == 302
    assert answer["Location"].startswith("/admin/login/")


def test_it_needs_its_permission(client: Client) -> None:
    client.force_login(cast.editor("bruno", "view_issue"))
    assert client.get(PAGE).status_code == 403
    assert PAGE not in client.get("/admin/").content.decode()


def test_the_admin_links_to_it(editing: Client) -> None:
    assert editing.get("/admin/").content.decode().count(f'href="{PAGE}"') == 2
    assert f'href="{PAGE}"' in editing.get("/admin/delivery/job/").content.decode()


def test_a_quiet_house_is_well(editing: Client) -> None:
    workers()
    assert "All is well" in section(editing, "summary")


def test_what_is_wrong_comes_first(editing: Client) -> None:
    now = database_now()
    a_job(state="dead")
    Alert.objects.create(name="failures:publish", raised_at=now, times=1, detail="4 of 60 failed")
    Alert.objects.create(name="failures:deliver", detail="it was, once")
    CircuitBreaker.objects.create(
        name="github", state="open", reason="503", until=now, changed_at=now
    )
    queue.pause_lane("bulk", actor="ana", reason="the mail server moves")
    found = section(editing, "summary")
    for said in (
        "failures:publish: 4 of 60 failed",
        "1 dead letter",
        "github: its breaker is open",
        "bulk is paused",
        "critical has no worker",
    ):
        assert said in found
    assert "failures:deliver" not in found


def test_it_shows_the_lanes(editing: Client) -> None:
    workers()
    a_job(lane=Lane.BULK, due_at=database_now() - timedelta(seconds=200))
    queue.pause_lane("bulk", actor="ana", reason="the mail server moves")
    found = section(editing, "lanes")
    assert re.search(r"bulk 1 3 min post-1:77", found)
    assert "the mail server moves by ana, since" in found
    assert "critical 0 post-1:77" in found


def test_it_shows_what_runs_waits_and_is_held(editing: Client) -> None:
    now = database_now()
    a_job("publish:7", "running", holder="post-1:77/81", runs=3)
    a_job(
        "publish:8",
        due_at=now + timedelta(seconds=301),
        troubles={"EdgeError": {"count": 2, "since": now.isoformat()}},
        note="the server said 503",
    )
    a_job("publish:9", due_at=now, troubles={"EdgeError": {"count": 1, "since": now.isoformat()}})
    assert Lease.acquire("sender:1:0")
    assert "publish:7 default now 3 post-1:77/81" in section(editing, "running")
    found = section(editing, "retries")
    assert re.search(r"publish:8 default in 5 min [\d:]+ 2 × EdgeError the server said 503", found)
    assert "publish:9" in found
    assert "sender:1:0" in section(editing, "leases")


def test_it_shows_the_schedules(editing: Client) -> None:
    cast.newsletter()
    workers()
    found = section(editing, "schedules")
    assert "release The Weekly" in found
    assert "the minute tick on post-1 now" in found


def test_a_newsletter_with_an_impossible_zone_does_not_hide_the_page(editing: Client) -> None:
    weekly = cast.newsletter()
    type(weekly).objects.update(zone="Mars/Base")
    assert "release The Weekly" in section(editing, "schedules")


def test_it_shows_the_last_day_in_bars_and_in_words(editing: Client) -> None:
    at = database_now().replace(second=0, microsecond=0)
    JobTally.objects.create(name="deliver", ending="done", at=at, runs=3, items=250, to_250_ms=3)
    JobTally.objects.create(name="publish", ending="retried", at=at, runs=2, to_50_ms=2)
    page = editing.get(PAGE).content.decode()
    assert re.search(r'role="img" aria-label="Mails an hour: 250 in 24 hours, most 250 from', page)
    found = section(editing, "throughput")
    assert f"{at:%Y-%m-%d %H}:00 5 2 250" in found
    assert "publish 2 2" in found


def test_a_dead_letter_says_what_it_was_and_names_nobody(editing: Client) -> None:
    row = a_job(state="dead", args={"to": "bob@example.org", "id": 3}, note="for bob@example.org")
    found = section(editing, "dead")
    assert "id=3, to=&lt;address&gt;" in found
    assert "for &lt;address&gt;" in found
    assert "in report.py" in found
    page = editing.get(PAGE).content.decode()
    assert reverse("admin:delivery_job_change", args=[row.pk]) in page
    assert "bob@example.org" not in page


def test_of_many_it_shows_the_first_and_the_number(editing: Client) -> None:
    Job.objects.bulk_create(
        Job(key=f"report:{n}", name="report", state="dead", due_at=database_now())
        for n in range(61)
    )
    assert "The last 50 of 61" in section(editing, "dead")


def test_its_script_gets_the_sections_alone(editing: Client) -> None:
    page = editing.get(f"{PAGE}?fragment").content.decode()
    assert "<html" not in page
    assert page.count("<section") == editing.get(PAGE).content.decode().count("<section")


def test_it_asks_the_database_the_same_few_questions_however_much_there_is(
    editing: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    crowd(2000)
    with django_assert_max_num_queries(MOST_QUERIES):
        assert editing.get(PAGE).status_code == 200


def test_it_reads_no_table_of_jobs_from_end_to_end(editing: Client) -> None:
    crowd(2000)
    with CaptureQueriesContext(
        connection,
    ) as captured:
        editing.get(PAGE)
    asked = [query["sql"] for query in captured if 'delivery_job"' in query["sql"]]
    assert len(asked) >= 5
    assert [sql for sql in asked if reads_all(sql)] == []


def crowd(number: int) -> None:
    """So many jobs of each kind, and a run of each name just now."""
    now = database_now()
    minute = now.replace(second=0, microsecond=0)
    JobTally.objects.bulk_create(
        JobTally(name=name, ending="done", at=minute, runs=1, to_1_s=1) for name in REGISTRY
    )
    kinds = (
        ("done", now, ""),
        ("dead", now, "odd"),
        ("queued", now - timedelta(seconds=5), ""),
        ("queued", now + timedelta(hours=1), ""),
    )
    Job.objects.bulk_create(
        (
            Job(key=f"{kind}:{n}", name="report", state=kind, due_at=due, note=note)
            for n in range(number)
            for kind, due, note in kinds[:3]
        ),
        batch_size=500,
    )
    Job.objects.bulk_create(
        (
            Job(key=f"later:{n}", name="report", due_at=now + timedelta(hours=1))
            for n in range(number)
        ),
        batch_size=500,
    )


def reads_all(sql: str) -> bool:
    """Would it, in a table that is big, look at every job?"""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
            steps = [row[3] for row in cursor.fetchall()]
            return any(re.match(r"SCAN delivery_job(?! USING)", step) for step in steps)
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {sql}")
        return any("Seq Scan on delivery_job" in row[0] for row in cursor.fetchall())


# Its buttons


def test_a_dead_letter_is_retried(editing: Client) -> None:
    row = a_job(state="dead")
    assert act(editing, retry=row.pk) == "Report:1 is tried again."
    assert state(row) == "queued"
    assert history(row) == [("queued", "ana")]


def test_the_ticked_are_discarded_and_the_others_stay(editing: Client) -> None:
    rows = [a_job(f"report:{n}", "dead") for n in range(3)]
    said = act(editing, discard="ticked", job=[rows[0].pk, rows[2].pk])
    assert said == "Done for 2 jobs."
    assert [state(row) for row in rows] == ["discarded", "dead", "discarded"]
    assert history(rows[0]) == [("discarded", "ana")]


def test_a_retry_unblocks_the_issue(editing: Client) -> None:
    issue = cast.approved(cast.newsletter())
    Issue.objects.filter(pk=issue.pk).update(state="publishing", blocked_reason="no answer")
    row = a_job(f"publish:{issue.pk}", "dead", name="publish", issue=issue)
    act(editing, retry=row.pk)
    issue.refresh_from_db()
    assert issue.blocked_reason == ""


def test_what_cannot_be_retried_says_why(editing: Client) -> None:
    first, second = a_job("report:1", "dead"), a_job("report:2", "dead")
    a_job("report:2")
    said = act(editing, retry="ticked", job=[first.pk, second.pk])
    assert "Report:1 is tried again." in said
    assert "Report:2 is not dead any more, or is on its way again already." in said
    assert state(second) == "dead"


def test_one_that_is_not_dead_is_not_discarded(editing: Client) -> None:
    row = a_job()
    assert "is not dead any more" in act(editing, discard=row.pk)
    assert state(row) == "queued"


@pytest.mark.parametrize("ids", [[], ["x"], ["9" * 30], ["12345"]])
def test_nothing_to_retry_is_told(editing: Client, ids: list[str]) -> None:
    assert "There was nothing to retry" in act(editing, retry="ticked", job=ids)


def test_a_button_that_does_not_exist_is_not_found(editing: Client) -> None:
    assert editing.post(f"{PAGE}dead/", {"burn": "1"}).status_code == 404


def test_a_lane_is_paused_with_a_reason_and_resumed(editing: Client) -> None:
    assert "Say why" in hold(editing, "bulk", "pause", "  ")
    assert hold(editing, "bulk", "pause", "the mail server moves").startswith("Bulk is paused.")
    row = LanePause.objects.get()
    assert (row.lane, row.actor, row.reason) == ("bulk", "ana", "the mail server moves")
    assert "is paused already" in hold(editing, "bulk", "pause", "again")
    assert hold(editing, "bulk", "resume") == "Bulk goes on."
    assert not LanePause.objects.exists()
    assert "is not paused" in hold(editing, "bulk", "resume")


@pytest.mark.parametrize("path", ["lanes/fast/pause/", "lanes/bulk/stop/"])
def test_an_unknown_lane_or_button_is_not_found(editing: Client, path: str) -> None:
    assert editing.post(PAGE + path, {"reason": "x"}).status_code == 404


@pytest.mark.parametrize("path", ["dead/", "lanes/bulk/pause/"])
def test_a_button_is_pressed_and_not_followed(editing: Client, path: str) -> None:
    assert editing.get(PAGE + path).status_code == 405


def test_who_may_only_look_finds_no_button_and_presses_none(client: Client) -> None:
    client.force_login(cast.editor("bruno", "view_job"))
    row = a_job(state="dead")
    page = client.get(PAGE).content.decode()
    assert "report:1" in page
    assert 'name="retry"' not in page
    assert "lanes/bulk/" not in page
    assert client.post(f"{PAGE}dead/", {"retry": row.pk}).status_code == 403
    assert client.post(f"{PAGE}lanes/bulk/pause/", {"reason": "x"}).status_code == 403
    assert state(row) == "dead"
    assert not LanePause.objects.exists()


# The admin's rows


def list_action(client: Client, action: str, *rows: Job) -> str:
    data = {"action": action, "_selected_action": [row.pk for row in rows]}
    return press(client, "/admin/delivery/job/", data)


def test_dead_jobs_are_retried_and_discarded_in_bulk(editing: Client) -> None:
    rows = [a_job(f"report:{n}", "dead") for n in range(4)]
    done = a_job("report:9", "done")
    said = list_action(editing, "retry", rows[0], rows[1], done)
    assert "Done for 2 jobs." in said
    assert "Report:9 is not dead any more" in said
    assert list_action(editing, "discard", rows[2], rows[3]) == "Done for 2 jobs."
    assert [state(row) for row in rows] == ["queued", "queued", "discarded", "discarded"]


def test_many_refusals_are_named_in_part(editing: Client) -> None:
    rows = [a_job(f"report:{n}", "done") for n in range(8)]
    said = list_action(editing, "retry", *rows)
    assert said.count("is not dead any more") == 5
    assert "The same for 3 more" in said


def test_bulk_actions_need_their_permission(client: Client) -> None:
    client.force_login(cast.editor("bruno", "view_job"))
    row = a_job(state="dead")
    list_action(client, "discard", row)
    assert state(row) == "dead"


@pytest.mark.parametrize(
    ("query", "found"),
    [("state__exact=dead", 1), ("lane__exact=bulk", 1), ("name=publish", 1), ("name=close", 0)],
)
def test_the_jobs_are_filtered(editing: Client, query: str, found: int) -> None:
    a_job("publish:1", "dead", name="publish")
    a_job("deliver:1", name="deliver", lane=Lane.BULK)
    answer = editing.get(f"/admin/delivery/job/?{query}")
    assert answer.context["cl"].result_count == found


def test_the_list_of_jobs_sorts_nothing(editing: Client) -> None:
    crowd(500)
    with CaptureQueriesContext(connection) as captured:
        page = editing.get("/admin/delivery/job/").content.decode()
    assert "?o=" not in page
    asked = [query["sql"] for query in captured if 'delivery_job"' in query["sql"]]
    sorted_by = {order for sql in asked for order in re.findall(r"ORDER BY (\S+)", sql)}
    assert sorted_by == {'"delivery_job"."id"'}
    assert not any("DISTINCT" in sql for sql in asked)


def test_a_jobs_page_tells_its_story_and_names_nobody(editing: Client, ana: User) -> None:
    row = a_job(
        state="dead",
        args={"to": "bob@example.org"},
        note="for bob@example.org",
        troubles={"EdgeError": {"count": 3, "since": database_now().isoformat()}},
    )
    row.record("running", "dead", "it was odd")
    page = editing.get(reverse("admin:delivery_job_change", args=[row.pk])).content.decode()
    for said in ("to=&lt;address&gt;", "3 × EdgeError", "in report.py", "it was odd"):
        assert said in words(page)
    assert "bob@example.org" not in page


def test_a_dead_job_is_retried_from_its_own_page(editing: Client) -> None:
    row = a_job(state="dead")
    path = reverse("admin:delivery_job_change", args=[row.pk])
    assert 'name="retry"' in editing.get(path).content.decode()
    answer = editing.post(f"{PAGE}dead/", {"retry": row.pk, "from_job": "1"}, follow=True)
    assert answer.redirect_chain[-1][0] == path
    assert 'name="retry"' not in answer.content.decode()
    assert state(row) == "queued"


def test_a_transactional_mail_is_listed_without_its_address(editing: Client) -> None:
    issue = cast.issue(cast.newsletter())
    TransactionalMail.objects.create(
        kind="test", address="bob@example.org", issue=issue, nonce="n", note="for bob@example.org"
    )
    page = editing.get("/admin/delivery/transactionalmail/").content.decode()
    assert "b…@example.org" in page
    assert "bob@example.org" not in page


# The command


def lanes(*typed: str) -> str:
    out = io.StringIO()
    call_command("lanes", *typed, stdout=out)
    return words(out.getvalue())


def refusal(*typed: str) -> str:
    with pytest.raises(CommandError) as error:
        lanes(*typed)
    assert error.value.returncode == 2
    return str(error.value)


def test_the_command_shows_the_lanes() -> None:
    workers()
    a_job(lane=Lane.BULK, due_at=database_now() - timedelta(seconds=200))
    said = lanes()
    assert "bulk 1 3 min post-1:77 (now)" in said
    assert "critical 0 - post-1:77" in said


def test_the_command_pauses_and_resumes() -> None:
    assert lanes("pause", "bulk", "--reason", "it moves").startswith("bulk is paused.")
    assert LanePause.objects.get().actor.endswith("(command)")
    assert re.search(r"bulk .* paused since .* by .*: it moves", lanes())
    assert refusal("pause", "bulk", "--reason", "again") == "bulk is paused already."
    assert lanes("resume", "bulk") == "bulk goes on."
    assert refusal("resume", "bulk") == "bulk is not paused."


def test_the_command_says_what_is_missing() -> None:
    assert refusal("pause", "bulk") == "Say why bulk is paused: --reason TEXT."
    assert refusal("pause") == "Say which lane to pause: critical, default, bulk."


@pytest.mark.parametrize("typed", [("stop", "bulk"), ("pause", "fast")])
def test_the_command_takes_no_other_word(typed: tuple[str, ...]) -> None:
    with pytest.raises(CommandError, match="invalid choice"):
        lanes(*typed)


def test_the_command_speaks_json() -> None:
    workers()
    queue.pause_lane("bulk", actor="ana", reason="it moves")
    found = {row["lane"]: row for row in json.loads(lanes("--json"))}
    assert list(found) == ["critical", "default", "bulk"]
    assert found["bulk"]["paused"]["by"] == "ana"
    assert found["critical"]["paused"] is None
    assert found["critical"]["workers"][0]["work"] == "post-1:77"
    assert (found["critical"]["due"], found["critical"]["oldest_seconds"]) == (0, 0)


# Its words and bars


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "40 ms"),
        (1, "1 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7200, "2 h"),
        (172_800, "2 days"),
        (None, ""),
        (-3, "0 ms"),
    ],
)
def test_a_duration_has_its_fitting_unit(seconds: float | None, said: str) -> None:
    assert shown.in_words(seconds) == said


def test_times_are_told_from_now() -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    assert shown.ago(now - timedelta(seconds=35), now) == "35 s ago"
    assert shown.ago(now + timedelta(seconds=2), now) == "now"
    assert shown.ahead(now + timedelta(minutes=4), now) == "in 4 min"
    assert shown.ahead(now - timedelta(seconds=35), now) == "overdue for 35 s"


def test_a_bar_is_as_high_as_its_share() -> None:
    first = datetime(2026, 6, 1, 7, tzinfo=UTC)
    drawn = chart(
        "Jobs", [(first + timedelta(hours=n), number) for n, number in enumerate((0, 50, 1, 200))]
    )
    assert [bar.height for bar in drawn.bars] == [0, 15, 1, 60]
    assert all(bar.y + bar.height == drawn.height for bar in drawn.bars)
    assert drawn.label == "Jobs an hour: 251 in 4 hours, most 200 from 10:00 UTC"
    assert drawn.bars[1].title == "08:00 UTC: 50"


def test_a_chart_of_nothing_has_no_peak() -> None:
    drawn = chart("Jobs", [(datetime(2026, 6, 1, tzinfo=UTC), 0)])
    assert drawn.label == "Jobs an hour: 0 in 1 hours"
