from __future__ import annotations

import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from delivery import queue
from delivery.models import Job, TransactionalMail
from delivery.models.job import JobState
from delivery.models.transactional_mail import MailState
from delivery.transactional import give_up_at, request_test
from newsletter.management.base import REFUSED, CarteiroCommand, find_issue
from newsletter.models import normalise_address

PATIENCE = 60.0  # seconds for a worker that has it already
POLL = 0.2


class Command(CarteiroCommand):
    help = (
        "Mail an issue, as it stands now, to one address. Needs no approval and touches no ledger. "
        "What the mail server does not take at once is tried again by `work`."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("issue", help="an id, a slug, or NEWSLETTER/SLUG")
        parser.add_argument("--to", required=True, metavar="ADDRESS", help="who gets it")

    def handle(self, *args: Any, **options: Any) -> None:
        issue = find_issue(options["issue"])
        try:
            address = normalise_address(options["to"])
        except ValueError as error:
            raise CommandError(f"--to is not an address: {error}", returncode=REFUSED) from None
        mail = request_test(issue, address)
        job = Job.objects.get(key=f"mail:{mail.pk}")
        queue.run(job.pk)  # here and now, unless a worker was quicker
        _follow(mail, job)
        if mail.state == MailState.PENDING:
            raise CommandError(_not_yet(mail, job))
        if mail.state != MailState.SENT:
            raise CommandError(f"{_sentence(mail.note)}. It is not tried again.")
        self.stdout.write(f"{issue.label} was mailed to {address}.")


def _follow(mail: TransactionalMail, job: Job) -> None:
    """Until the mail is settled, or its attempt has ended without that."""
    end = time.monotonic() + PATIENCE
    while True:
        job.refresh_from_db()
        mail.refresh_from_db()
        if job.state != JobState.RUNNING or time.monotonic() > end:
            return
        time.sleep(POLL)


def _not_yet(mail: TransactionalMail, job: Job) -> str:
    if job.state == JobState.DEAD:
        return f"It was not mailed: {job.note}. The job {job.key} is dead: see the admin."
    why = job.note or "no worker has answered yet"
    until = f"{give_up_at(mail):%Y-%m-%d %H:%M} UTC"
    return f"{_sentence(why)}. `work` tries again until {until}."


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:].rstrip(".")
