"""The log of one's own relay as evidence for an issue's `unknown` rows."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from newsletter.models import Issue, Refused, address_key, normalise_address

from . import postfix_log, settling
from .copies import Copies
from .models import CompiledIssue, EmailDelivery
from .moves import UNKNOWN
from .postfix_log import Account, Fate

SOURCE = "postfix log"


@dataclass
class Tally:
    """Rows: those that were unknown, and what the log said of them. The rest has no trace in it."""

    unknown: int = 0
    sent: int = 0
    failed: int = 0
    deferred: int = 0
    nothing: int = 0


def settle(issue: Issue, paths: list[str], *, actor: str, dry_run: bool = False) -> Tally:
    """Read the files, the oldest first, and settle what they prove. Refused where they are no log of this issue's mail.

    Nothing is changed before the last line is read. `dry_run` counts and changes nothing. Safe to repeat.
    """
    compiled = CompiledIssue.objects.filter(pk=issue.pk).first()
    if compiled is None:
        raise Refused(f"{issue.label} was never sent: it has no rows to settle.")
    rows = EmailDelivery.objects.of(issue.pk).filter(status=UNKNOWN).order_by("id")
    copies = Copies(compiled)
    wanted = {copies.message_id(row.pk): row for row in rows.only("address_key", "resend_no")}
    tally = Tally(unknown=len(wanted))
    if not wanted:
        return tally
    account = _read(paths, issue, _pattern(copies), wanted)
    for name, row in wanted.items():
        recipient = Recipient(row.address_key)
        fate, words = account.fate(name, recipient)
        if fate is Fate.FAILED and account.taken(name, recipient) <= row.resend_no:
            # A resent copy bears the same Message-ID: this may be the first one's end.
            fate = Fate.NOTHING
        _settle(row, fate, words, tally, dry_run=dry_run)
    if (tally.sent or tally.failed) and not dry_run:
        found = f"{tally.sent} sent, {tally.failed} failed, of {tally.unknown} unknown"
        issue.note(f"settled by the {SOURCE}: {found}", actor=actor)
    return tally


class Recipient:
    """Knows an address again by its keyed hash, which outlives the erasure of the address."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, address: str) -> bool:
        with suppress(ValueError):
            return address_key(normalise_address(address)) == self._key
        return False


def _settle(row: EmailDelivery, fate: Fate, words: str, tally: Tally, *, dry_run: bool) -> None:
    if fate in (Fate.SENT, Fate.FAILED):
        sent = fate is Fate.SENT
        won = 1 if dry_run else _prove(row, sent, words)
        tally.sent += won * sent
        tally.failed += won * (not sent)
    elif fate is Fate.DEFERRED:
        tally.deferred += 1
    else:
        tally.nothing += 1


def _prove(row: EmailDelivery, sent: bool, words: str) -> int:
    """As the row was when the reading began: it may take minutes, and an operator may have resent it since."""
    no = row.resend_no
    return settling.prove([row.pk], sent=sent, source=SOURCE, detail=words, resend_no=no)


def _pattern(copies: Copies) -> re.Pattern[str]:
    """Any Message-ID of the issue."""
    return re.compile(re.escape(copies.message_id(0)).replace("<0", "<[0-9]+", 1))


def _read(
    paths: list[str], issue: Issue, ours: re.Pattern[str], wanted: dict[str, EmailDelivery]
) -> Account:
    account = postfix_log.read(
        _lines(paths),
        ours=lambda name: ours.fullmatch(name) is not None,
        wanted=wanted.__contains__,
    )
    files = ", ".join(paths)
    if not account.postfix_lines:
        raise Refused(
            f"{files}: no Postfix log. None of {account.lines} lines begins with a time, a host and `postfix/...`. "
            "Give the file that the relay's maillog_file or syslog writes."
        )
    if not account.ours:
        raise Refused(
            f"{files}: {account.postfix_lines} lines of Postfix, but none names a mail of {issue.label}. Is it the log "
            "of the relay in EMAIL_URL, and of the day of the send?"
        )
    return account


def _lines(paths: list[str]) -> Iterator[bytes]:
    for path in paths:
        try:
            # Asked before it is opened: a FIFO waits for its writer, and a device has no end.
            if not stat.S_ISREG(Path(path).stat().st_mode):
                raise Refused(f"{path} cannot be read: it is no regular file. Copy the log to one.")
            with Path(path).open("rb") as file:
                yield from postfix_log.lines(file)
        except OSError as error:
            raise Refused(f"{path} cannot be read: {error.strerror or error}.") from None
        except postfix_log.Damaged as error:
            raise Refused(f"{path} is damaged: {error}. Copy it again, or unpack it.") from None
