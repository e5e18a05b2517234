"""Mail to one person who waits for it: a confirmation, the test of an issue. Each has a row, and arrives at least once.

A second copy of such a mail is a nuisance, none is a reader lost: what nobody can tell is tried again. Each attempt
has the same Message-ID, so that a mailbox can know the second copy.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import DateTimeField, F, Q, Value
from django.db.models.functions import Coalesce

from newsletter import rendering
from newsletter.models import (
    Issue,
    Refused,
    Subscriber,
    Subscription,
    Suppression,
    address_key,
    database_now,
)
from newsletter.models.subscription import SubscriptionState
from newsletter.models.suppression import SuppressionReason

from . import breakers, letters, limits, notifying, queue
from .channel import CHANNEL, transport
from .errors import EdgeError
from .models import House, Job, TransactionalMail
from .models.transactional_mail import MailKind, MailState
from .outcome import Discard, Done, Outcome, Wait
from .redaction import redact_text
from .retries import HOUR, Backoff, On
from .transports import Envelope, outcomes
from .transports.outcomes import Verdict

# The wall-clock end of each, from the request on.
WITHIN = {MailKind.CONFIRMATION: timedelta(hours=24), MailKind.TEST: timedelta(hours=1)}
ASKED_JUST_NOW = timedelta(minutes=10)
# To one person, of all newsletters: nobody can have us flood somebody else's mailbox.
QUESTIONS_A_DAY = 5
# Seconds for the reply to the end of a message: while one waits the others behind it wait too.
PATIENCE = 20.0
DOUBT_SECONDS = 60.0  # until it is looked at again whether the database is believed
# The server did not answer as it should; any other verdict is an answer, and says nothing against the channel.
CHANNEL_TROUBLE = (Verdict.RETRY_CHANNEL, Verdict.UNKNOWN)


def request_confirmation(subscription: Subscription) -> bool:
    """Queue the question whether its person wants it, in the caller's transaction; False where they were asked
    just now, or too often today."""
    with transaction.atomic():
        # Locked: of two requests at once the second finds the first.
        person = Subscriber.objects.select_for_update(no_key=True).get(
            pk=subscription.subscriber_id
        )
        if not person.address or _asked_enough(subscription):
            return False
        _queue(MailKind.CONFIRMATION, person.address, subscription=subscription)
    return True


def request_test(issue: Issue, address: str) -> TransactionalMail:
    """Queue the issue as it stands, with [Test] before its subject, to one address. Refused where it has problems."""
    problems = rendering.problems(issue.document())
    if problems:
        raise Refused(f"{issue.label} cannot be mailed: " + " ".join(problems))
    return _queue(MailKind.TEST, address, issue=issue)


def deliver(mail_id: int) -> Outcome:
    """Make one attempt, or say why not. Crosses the network; raises EdgeError where it is to be tried again."""
    mail = _find(mail_id)
    if mail is None:
        return Discard("the mail is gone")
    if mail.state != MailState.PENDING:
        return Discard(f"the mail is {mail.state} already")
    # Who confirmed, and which mail went out, is what a database that was put back has forgotten. An operator's pause is
    # of newsletters: a person who waits for a confirmation gets it.
    if doubt := House.read().doubt:
        return Wait(DOUBT_SECONDS, f"the database is not believed: {doubt}")
    if reason := _unwanted(mail):
        return Done(reason, partial(_settle, mail, MailState.DROPPED, reason))
    if database_now() > give_up_at(mail):
        return Done("its time is over", partial(_give_up, mail, "it was not taken in time"))
    try:
        envelope = letters.envelope(mail)
    except ValueError as error:
        reason = f"the mail cannot be made: {redact_text(str(error))}"
        return Done(reason, partial(_settle, mail, MailState.FAILED, reason))
    if seconds := limits.take_reserved(CHANNEL):
        return Wait(seconds, "waits for its turn in the rate")
    return _conclude(mail, _attempt(mail, envelope))


def give_up_at(mail: TransactionalMail) -> datetime:
    """Until when it is tried."""
    return mail.created_at + WITHIN[MailKind(mail.kind)]


def gave_up(job: Job, reason: str) -> None:
    """The job's policy is spent: so is the mail."""
    if mail := _find(job.args["mail_id"]):
        _give_up(mail, reason)


def drop(key: str, reason: str) -> None:
    """The mail of this job is not wanted any more. By its key: name and arguments may be what is wrong with it."""
    kind, _, number = key.partition(":")
    if kind == "mail" and (mail := _find(int(number))):
        _settle(mail, MailState.DROPPED, reason)


# Of the job "mail". Its own end is the mail's `give_up_at`, which holds for what waits for the rate too.
MAIL = (On(EdgeError, Backoff(first=2, cap=300), times=1_000, within=24 * HOUR, then=gave_up),)


def _asked_enough(subscription: Subscription) -> bool:
    now = database_now()
    asked = TransactionalMail.objects.filter(
        kind=MailKind.CONFIRMATION, subscription__subscriber=subscription.subscriber_id
    )
    waiting = Q(state=MailState.PENDING, created_at__gt=now - WITHIN[MailKind.CONFIRMATION])
    lately = Q(created_at__gt=now - ASKED_JUST_NOW)
    if asked.filter(waiting | lately, subscription=subscription).exists():
        return True
    return asked.filter(created_at__gt=now - timedelta(days=1)).count() >= QUESTIONS_A_DAY


def _queue(kind: MailKind, address: str, **about: Any) -> TransactionalMail:
    with transaction.atomic():
        mail = TransactionalMail.objects.create(
            kind=kind, address=address, nonce=secrets.token_hex(12), **about
        )
        queue.enqueue("mail", key=f"mail:{mail.pk}", mail_id=mail.pk)
    return mail


def _find(mail_id: int) -> TransactionalMail | None:
    return (
        TransactionalMail.objects.select_related(
            "subscription__subscriber", "subscription__newsletter", "issue__newsletter"
        )
        .filter(pk=mail_id)
        .first()
    )


def _unwanted(mail: TransactionalMail) -> str:
    """Why it must not go out any more; empty where it may."""
    if Suppression.objects.filter(address_key=address_key(mail.address)).exists():
        return "the address is suppressed"
    subscription = mail.subscription
    if subscription is None:
        return ""
    if subscription.state != SubscriptionState.PENDING:
        return f"the subscription is {subscription.state} already"
    if subscription.subscriber.address != mail.address:
        return "the person's address was erased or changed"
    return ""


def _attempt(mail: TransactionalMail, envelope: Envelope) -> outcomes.Outcome:
    with breakers.guard(CHANNEL):
        _begin(mail)
        connection = transport(PATIENCE).connect()
        try:
            outcome = connection.send(envelope)
        finally:
            connection.close()
        if outcome.verdict in CHANNEL_TROUBLE:
            raise EdgeError(_in_words(outcome))
    return outcome


def _begin(mail: TransactionalMail) -> None:
    """Committed before the network: when it first left is known also where nothing comes back."""
    first = Coalesce("started_at", Value(database_now(), output_field=DateTimeField()))
    TransactionalMail.objects.filter(pk=mail.pk).update(
        attempts=F("attempts") + 1, started_at=first
    )


def _conclude(mail: TransactionalMail, outcome: outcomes.Outcome) -> Outcome:
    if outcome.verdict is Verdict.SENT:
        return Done("sent", partial(_settle, mail, MailState.SENT, ""))
    if outcome.verdict is Verdict.FAILED:
        return Done(_in_words(outcome), partial(_refused, mail, outcome))
    raise EdgeError(_in_words(outcome))


def _in_words(outcome: outcomes.Outcome) -> str:
    said = f"{outcome.reason} {outcome.reply}".strip()
    return f"the mail server did not take it ({outcome.phase.value}): {said}"


def _refused(mail: TransactionalMail, outcome: outcomes.Outcome) -> None:
    _settle(mail, MailState.FAILED, _in_words(outcome))
    if outcome.suppress:
        Suppression.objects.get_or_create(
            address_key=address_key(mail.address),
            defaults={"reason": SuppressionReason.BAD_ADDRESS, "detail": outcome.reply[:500]},
        )


def _give_up(mail: TransactionalMail, reason: str) -> None:
    """Told once a day for each newsletter: behind one such mail there are often many."""
    newsletter = letters.newsletter_of(mail)
    if _settle(mail, MailState.FAILED, reason):
        notifying.tell(
            "mail_given_up",
            f"A {mail.kind} mail of “{newsletter.name}” was given up",
            reason,
            level="error",
            newsletter=newsletter,
            once=f"{database_now():%Y%m%d}",
        )


def _settle(mail: TransactionalMail, state: MailState, note: str) -> bool:
    """pending -> its end; False where it was settled before."""
    pending = TransactionalMail.objects.filter(pk=mail.pk, state=MailState.PENDING)
    return bool(pending.update(state=state, note=note[:500], settled_at=database_now()))
