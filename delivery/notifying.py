"""Notices to the people who run the newsletter: best effort, at most once for each event and channel."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Literal

import structlog
from django.conf import settings
from django.db import DatabaseError, transaction

from newsletter.models import Issue, Newsletter

from . import breakers, http, queue
from .channel import CHANNEL, transport
from .errors import BreakerOpen, EdgeError
from .models import Job, Notification
from .models.notification import NotificationState
from .notifiers import Notice, discord, slack
from .notifiers import email as by_email
from .outcome import Discard, Done, Outcome
from .retries import HOUR, Fixed, On
from .transports import Envelope
from .transports.outcomes import Verdict

log = structlog.get_logger(__name__)

Level = Literal["info", "warning", "error"]
SEVERITY = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
LOG = "log"  # the channel that is always there: the log's line, and the issue's page
SILENT = (Verdict.RETRY_CHANNEL, Verdict.UNKNOWN)  # the mail server is down, or said no word
WEBHOOK = http.Limits(total_seconds=5.0, max_bytes=1_000_000)  # they answer with a word


def tell(
    event: str,
    title: str,
    *lines: str,
    level: Level = "info",
    issue: Issue | None = None,
    newsletter: Newsletter | None = None,
    once: str = "",
    but: str = "",
) -> None:
    """Queue a notice for each channel, in the transaction of what it tells. The same `once` is told only once.

    `but` is a breaker: the channels behind it are left out.
    """
    about = f"issue:{issue.pk}" if issue else f"newsletter:{newsletter.pk}" if newsletter else "all"
    key = f"{event}:{about}:{once}" if once else f"{event}:{about}"
    notice = {
        "event": event,
        "level": level,
        "title": title,
        "lines": list(lines),
        "url": _admin_url(issue),
        "from": (issue.newsletter if issue else newsletter or Newsletter()).from_email,
    }
    with transaction.atomic():
        for name in (LOG, *channels()):
            if breaker_of(name) != but:
                _queue(key[:150], name, notice, issue)


def channels() -> list[str]:
    """The configured channels: `discord`, `slack`, and one `email:N` for each address."""
    found = [
        name
        for name, url in (
            ("discord", settings.DISCORD_WEBHOOK_URL),
            ("slack", settings.SLACK_WEBHOOK_URL),
        )
        if url
    ]
    return found + [f"email:{number}" for number in range(len(settings.NOTIFY_EMAIL))]


def breaker_of(channel: str) -> str:
    """The breaker that a channel is behind: mailed notices share the readers' mail server."""
    return CHANNEL if channel.startswith("email:") else channel


def deliver(notification_id: int) -> Outcome:
    """Tell one notice: marked before the first byte, and never tried again after it.

    Raises BreakerOpen, before the mark, where its channel does not answer just now.
    """
    row = Notification.objects.filter(pk=notification_id, state=NotificationState.PENDING).first()
    if row is None:
        return Discard("told already, or given up")
    try:
        with breakers.guard(breaker_of(row.channel)):
            if not _mark(row):
                return Discard("told by another worker")
            _send(row)
    except (BreakerOpen, DatabaseError):
        raise
    except EdgeError as error:
        return Done(error.message, partial(_settle, row, NotificationState.FAILED, error.message))
    except Exception as error:
        log.exception("notice.fault", channel=row.channel)
        note = f"a fault of ours: {type(error).__name__}"
        return Done(note, partial(_settle, row, NotificationState.FAILED, note))
    return Done("told", partial(_settle, row, NotificationState.SENT, ""))


def give_up(job: Job, reason: str) -> None:
    """Its channel did not answer in time: the notice stands in the log and on the pages, and nobody else is told."""
    rows = Notification.objects.filter(
        pk=job.args["notification_id"], state=NotificationState.PENDING
    )
    rows.update(state=NotificationState.FAILED, note=reason[:500])


def _queue(key: str, name: str, notice: Mapping[str, object], issue: Issue | None) -> None:
    row, created = Notification.objects.get_or_create(
        key=key, channel=name, defaults={"issue": issue, "notice": notice}
    )
    if created and name == LOG:
        log.log(SEVERITY[str(notice["level"])], f"notice.{notice['event']}", issue=row.issue_id)
        _settle(row, NotificationState.SENT, "")
    elif created:
        queue.enqueue(
            "notify",
            key=f"notify:{row.pk}",
            issue_id=issue.pk if issue else None,
            notification_id=row.pk,
        )


def _mark(row: Notification) -> bool:
    """pending -> sending, for one caller only."""
    pending = Notification.objects.filter(pk=row.pk, state=NotificationState.PENDING)
    return bool(pending.update(state=NotificationState.SENDING))


def _settle(row: Notification, state: str, note: str) -> None:
    Notification.objects.filter(pk=row.pk).update(state=state, note=note[:500])


def _send(row: Notification) -> None:
    data = row.notice
    notice = Notice(data["event"], data["level"], data["title"], tuple(data["lines"]), data["url"])
    fetch = partial(http.fetch, allow_private=settings.ALLOW_PRIVATE_URLS, limits=WEBHOOK)
    if row.channel == "discord":
        discord.notify(settings.DISCORD_WEBHOOK_URL, notice, fetch=fetch)
    elif row.channel == "slack":
        slack.notify(settings.SLACK_WEBHOOK_URL, notice, fetch=fetch)
    else:
        _mail(row.channel, notice, data["from"])


def _mail(name: str, notice: Notice, sender: str) -> None:
    number = int(name.partition(":")[2])
    if number >= len(settings.NOTIFY_EMAIL):
        raise EdgeError("NOTIFY_EMAIL no longer names this recipient", permanent=True)
    to = settings.NOTIFY_EMAIL[number]
    data = by_email.compose(
        notice,
        from_address=sender or to,
        to_address=to,
        date=datetime.now(UTC),
        message_id=f"<notice.{secrets.token_hex(12)}@{(sender or to).rpartition('@')[2]}>",
    )
    connection = transport().connect()
    try:
        outcome = connection.send(Envelope(sender or to, to, data))
    finally:
        connection.close()
    if outcome.verdict is not Verdict.SENT:
        raise EdgeError(
            f"the notice was not accepted: {outcome.reason} {outcome.reply}".strip(),
            permanent=outcome.verdict not in SILENT,  # it answered: our mail, or this recipient
        )


def _admin_url(issue: Issue | None) -> str:
    if issue is None:
        return f"{settings.PUBLIC_URL}/admin/"
    return f"{settings.PUBLIC_URL}/admin/newsletter/issue/{issue.pk}/change/"


# The one thing that it waits for is its channel's breaker.
NOTIFY = (On(BreakerOpen, Fixed(60), times=1, within=24 * HOUR, then=give_up),)
