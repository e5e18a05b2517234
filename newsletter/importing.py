"""Subscribers from a CSV file: good rows get in, each bad one is reported with its line."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO

from django.db import connection, transaction

from newsletter.csv_rows import ImportRefused, Tell, one_line, rows
from newsletter.models import (
    AddressKey,
    Newsletter,
    address_key,
    database_now,
    normalise_address,
)
from newsletter.staging import StagedRow, staged
from newsletter.tokens import new_token

__all__ = ["ImportRefused", "Report", "import_subscribers"]

BATCH = 5000  # rows a transaction
# SQLite has no queue for its one write lock: who waits for it looks again each 0.1 s at most, and must find it free.
BREATH_SECONDS = 0.02
TOLD_EVERY = 5000  # rows read
NAME_LENGTH = 200
ORDERED = 6  # characters of a token that follow the order of the keys
# A `state` of who is no reader, by its letters: as our export writes it, and as other tools do. Other words may
# well be a place in America.
NOT_TAKEN = frozenset(
    [
        *("pending", "unsubscribed", "suppressed"),
        *("archived", "banned", "blacklisted", "blocked", "blocklisted", "bounce", "bounced"),
        *("canceled", "cancelled", "cleaned", "complained", "complaint", "deleted", "disabled"),
        *("hardbounce", "hardbounced", "inactive", "invalid", "junk", "nonsubscribed"),
        *("notconfirmed", "notsubscribed", "optedout", "optout", "rejected", "removed"),
        *("softbounce", "softbounced", "spam", "spammy", "suspended", "transactional"),
        *("unactivated", "unconfirmed", "undeliverable", "unsubscribe", "unverified"),
    ]
)

# New people; who is suppressed is not stored. In one order of keys, as two imports would wait for each other else.
PEOPLE = """
INSERT INTO newsletter_subscriber (address, address_key, name, created_at)
SELECT staged.address, staged.address_key, staged.name, %(now)s FROM import_sorted staged
WHERE staged.place BETWEEN %(first)s AND %(last)s AND staged.line = staged.first_line
  AND NOT EXISTS (SELECT 1 FROM newsletter_suppression suppression
                  WHERE suppression.address_key = staged.address_key)
ORDER BY staged.place
ON CONFLICT (address_key) DO NOTHING
"""
CONSENTS = """
INSERT INTO newsletter_subscription (subscriber_id, newsletter_id, state, token, consent_source, consent_at)
SELECT subscriber.id, %(newsletter)s, 'confirmed', staged.token, %(source)s, %(now)s
FROM import_sorted staged
JOIN newsletter_subscriber subscriber ON subscriber.address_key = staged.address_key
WHERE staged.place BETWEEN %(first)s AND %(last)s AND staged.line = staged.first_line
  AND NOT EXISTS (SELECT 1 FROM newsletter_suppression suppression
                  WHERE suppression.address_key = staged.address_key)
ORDER BY staged.place
ON CONFLICT (subscriber_id, newsletter_id) DO NOTHING
"""
# Whoever was not added just now (their token is another), and why.
OTHERS = """
SELECT staged.line, staged.first_line, subscription.state,
    EXISTS (SELECT 1 FROM newsletter_suppression suppression
            WHERE suppression.address_key = staged.address_key)
FROM import_sorted staged
LEFT JOIN newsletter_subscriber subscriber ON subscriber.address_key = staged.address_key
LEFT JOIN newsletter_subscription subscription
    ON subscription.subscriber_id = subscriber.id AND subscription.newsletter_id = %(newsletter)s
WHERE staged.place BETWEEN %(first)s AND %(last)s
  AND (subscription.token IS NULL OR subscription.token <> staged.token)
ORDER BY staged.line
"""
# The tables grow under the planner, which would read them whole for each batch.
ROW_BY_ROW = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"


@dataclass
class Report:
    """What an import did, in rows of the file that are not empty."""

    rows: int = 0
    added: int = 0
    already: int = 0
    problems: int = 0


Progress = Callable[[str, int], object]


def nobody(*told: object) -> None:
    """Who is told nothing."""


def import_subscribers(
    file: BinaryIO,
    newsletter: Newsletter,
    *,
    source: str,
    tell: Tell = nobody,
    progress: Progress = nobody,
) -> Report:
    """Confirm the file's addresses for the newsletter, with `source` as their consent's. Safe to repeat.

    The file is binary, and read once, from where it stands; `csv_rows.rows` says what it holds. `tell` hears each row's
    problem: (line, what is wrong), first of the rows that are none, then of those that the database knows. `progress`
    hears ("read" or "done", rows so far). ImportRefused, and nobody is added, where the file cannot be read to its end.
    """
    AddressKey.check_unchanged()
    run = _Import(newsletter, source, tell, progress, Report())
    with closing(run.checked(file)) as checked, staged(checked) as number:
        for first in range(1, number + 1, BATCH):
            last = min(first + BATCH - 1, number)
            run.add(first, last)
            progress("done", last)
            if connection.vendor == "sqlite":
                time.sleep(BREATH_SECONDS)
    return run.report


@dataclass
class _Import:
    newsletter: Newsletter
    source: str
    tell: Tell
    progress: Progress
    report: Report

    def checked(self, file: BinaryIO) -> Generator[StagedRow, None, None]:
        for row in rows(file, self._unreadable):
            self._count_row()
            try:
                address = normalise_address(row.email)
            except ValueError as error:
                self._problem(row.line, f"is not an address: {error}")
                continue
            if re.sub(r"[\W_]", "", row.state).casefold() in NOT_TAKEN:
                self._problem(row.line, f"is {row.state.strip()} in the file: it was not taken")
                continue
            name = one_line(row.name)[:NAME_LENGTH]
            key = address_key(address)
            yield StagedRow(row.line, key, address, name, _token(key))

    def add(self, first: int, last: int) -> None:
        """The staged rows of these places, in one short transaction: what was reported as added is added."""
        places = {"first": first, "last": last, "newsletter": self.newsletter.pk}
        with transaction.atomic(), connection.cursor() as cursor:
            # Two imports at once take turns: each sees what the other has added.
            Newsletter.objects.select_for_update(no_key=True).get(pk=self.newsletter.pk)
            if connection.vendor == "postgresql":
                cursor.execute(ROW_BY_ROW)
            now = connection.ops.adapt_datetimefield_value(database_now())
            cursor.execute(PEOPLE, {**places, "now": now})
            cursor.execute(CONSENTS, {**places, "now": now, "source": self.source})
            added = cursor.rowcount
            others = []
            if added <= last - first:
                cursor.execute(OTHERS, places)
                others = cursor.fetchall()
        self.report.added += added
        for other in others:
            self._sort_out(*other)

    def _sort_out(self, line: int, first_line: int, state: str | None, suppressed: Any) -> None:
        if line != first_line:
            self._problem(line, f"is the same address as line {first_line}")
        elif suppressed or state is None:
            self._problem(line, "is suppressed: it must not be mailed")
        elif state == "confirmed":
            self.report.already += 1
        else:
            self._problem(line, f"is {state} here: an import does not change that")

    def _unreadable(self, line: int, why: str) -> None:
        self._count_row()
        self._problem(line, why)

    def _count_row(self) -> None:
        self.report.rows += 1
        if self.report.rows % TOLD_EVERY == 0:
            self.progress("read", self.report.rows)

    def _problem(self, line: int, why: str) -> None:
        self.report.problems += 1
        self.tell(line, why)


def _token(key: str) -> str:
    """A token whose first characters are the key's: a million at random places of their index cost half of the import.

    37 random characters, 222 bits, stay; and the key tells nothing without ADDRESS_KEY.
    """
    return key[:ORDERED] + new_token()[ORDERED:]
