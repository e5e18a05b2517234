"""What a Postfix log says of messages, by Message-ID: read once, line by line, whatever its size.

A message's lines are joined by its queue id: `cleanup` names the Message-ID, `qmgr` says that the message was taken
whole, a delivery agent's `status=` what became of it (https://www.postfix.org/postconf.5.html, "maillog_file";
src/global/log_adhoc.c). A queue id is used again later, so that `removed` and the next message's first line end it.
"""

from __future__ import annotations

import enum
import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

LONGEST_LINE = 64 * 1024  # more than syslog takes; what is longer is cut into several
_GZIP = b"\x1f\x8b"

# A time in either form, a host's name, then the program: `postfix/smtp[123]: `, `postfix-out/relay/smtp[123]: `.
_LINE = re.compile(
    rb"(?:[A-Z][a-z]{2} [ \d]\d(?: \d{4})? \d\d:\d\d:\d\d\S*|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S*) \S+ "
    rb"postfix[\w.-]*(?:/[\w.-]+)*/([\w-]+)\[\d+\]: (.*)",
    re.DOTALL,
)
# Short ids are hexadecimal; long ones have the 52 letters and digits that are no vowels.
_QUEUE_ID = re.compile(
    rb"([0-9A-F]{5,20}|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,24}): (.*)", re.DOTALL
)
_MESSAGE_ID = re.compile(rb"message-id=(<[^>]{1,900}>)")
_BEGINS = (b"client=", b"uid=")
_RECIPIENT = re.compile(rb"to=<([^>]*)>(?:, orig_to=<([^>]*)>)?, ")
_STATUS = re.compile(rb", status=([a-z-]+)(?:[ ,]|\s*$)(.*)", re.DOTALL)
_GIVEN_UP = re.compile(rb"from=<[^>]*>, status=(?:force-)?expired\b(.*)", re.DOTALL)


class Fate(enum.Enum):
    """What a log says of one message and one recipient."""

    SENT = "sent"
    FAILED = "failed"  # bounced, or expired in the queue
    DEFERRED = "deferred"  # taken; its end is not in this log
    NOTHING = "nothing"  # no trace, or none of having been taken


_FATES = {b"sent": Fate.SENT, b"bounced": Fate.FAILED, b"deferred": Fate.DEFERRED}


class Damaged(ValueError):
    """A packed file that breaks off, or is none."""


@dataclass
class Passage:
    """One way of a message through the relay: one queue id, from its first line to `removed`."""

    taken: bool = False
    expired: str | None = None  # the words with which the queue gave it up
    # Recipient -> its last status, with the words; the addresses as they are logged.
    told: dict[str, tuple[Fate, str]] = field(default_factory=dict)
    # The recipient that was asked for -> those that it was rewritten to.
    rewritten: dict[str, list[str]] = field(default_factory=dict)

    def verdicts(self, is_recipient: Callable[[str], bool]) -> list[tuple[Fate, str]]:
        """What it says of the recipient; nothing where it names another."""
        names = {to for to in self.told if is_recipient(to)}
        for asked, others in self.rewritten.items():
            if is_recipient(asked):
                names.update(others)
        return [self._verdict(*self.told[name]) for name in sorted(names)]

    def _verdict(self, fate: Fate, words: str) -> tuple[Fate, str]:
        if fate is Fate.DEFERRED and self.expired is not None:
            return Fate.FAILED, f"expired {self.expired}; {words}"
        return fate, words


@dataclass
class Account:
    """All that a log says of the wanted messages."""

    lines: int = 0
    postfix_lines: int = 0
    ours: int = 0  # messages that `ours` knew
    passages: dict[str, list[Passage]] = field(default_factory=dict)  # by Message-ID, in order

    def fate(self, message_id: str, is_recipient: Callable[[str], bool]) -> tuple[Fate, str]:
        """What became of it, and the relay's words.

        Sent where any passage was. Failed only where none can have been: all that were taken, and the last one, have
        an end. What was cut off before its end has no line of `qmgr`.
        """
        passages = self.passages.get(message_id, [])
        open_ended, failed = False, ""
        for passage in passages:
            verdicts = passage.verdicts(is_recipient)
            for fate, words in verdicts:
                if fate is Fate.SENT:
                    return Fate.SENT, words
            if verdicts and all(fate is Fate.FAILED for fate, _ in verdicts):
                failed = verdicts[-1][1]
            elif passage.taken or verdicts or passage is passages[-1]:
                open_ended = True
        if failed and not open_ended:
            return Fate.FAILED, failed
        taken = self.taken(message_id, is_recipient)
        return (Fate.DEFERRED if taken else Fate.NOTHING), ""

    def taken(self, message_id: str, is_recipient: Callable[[str], bool]) -> int:
        """How many of its passages the relay took whole, or tells the end of. The others broke off on the way in."""
        passages = self.passages.get(message_id, [])
        return sum(bool(each.taken or each.verdicts(is_recipient)) for each in passages)


def lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a log, plain or gzip; raises Damaged, or OSError."""
    packed = file.read(2) == _GZIP
    file.seek(0)
    source = gzip.GzipFile(fileobj=file) if packed else file
    try:
        while line := source.readline(LONGEST_LINE):
            yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Damaged(str(error)) from None


def read(
    found: Iterable[bytes], ours: Callable[[str], bool], wanted: Callable[[str], bool]
) -> Account:
    """Read a log. `ours` knows a Message-ID of the issue, `wanted` one of those whose fate is asked for."""
    account = Account()
    open_now: dict[bytes, Passage] = {}
    for line in found:
        account.lines += 1
        program = _LINE.match(line)
        if not program:
            continue
        account.postfix_lines += 1
        named = _QUEUE_ID.match(program[2])
        if named:
            _note(account, open_now, program[1], named[1], named[2], ours, wanted)
    return account


def _note(
    account: Account,
    open_now: dict[bytes, Passage],
    program: bytes,
    queue_id: bytes,
    text: bytes,
    ours: Callable[[str], bool],
    wanted: Callable[[str], bool],
) -> None:
    begins = _MESSAGE_ID.match(text) if program == b"cleanup" else None
    if begins:
        open_now.pop(queue_id, None)
        message_id = _text(begins[1])
        account.ours += ours(message_id)
        if wanted(message_id):
            open_now[queue_id] = passage = Passage()
            account.passages.setdefault(message_id, []).append(passage)
        return
    known = open_now.get(queue_id)
    if known is None:
        return
    if text.startswith(_BEGINS) or text.rstrip() == b"removed":
        del open_now[queue_id]
    elif program in (b"qmgr", b"oqmgr", b"nqmgr"):
        _note_queue(known, text)
    else:
        _note_status(known, text)


def _note_queue(passage: Passage, text: bytes) -> None:
    given_up = _GIVEN_UP.match(text)
    if given_up:
        passage.expired = _text(given_up[1]).strip(" ,\n")
    elif text.startswith(b"from=<"):
        passage.taken = True


def _note_status(passage: Passage, text: bytes) -> None:
    recipient = _RECIPIENT.match(text)
    status = _STATUS.search(text, recipient.end() - 2) if recipient else None
    if not recipient or not status or status[1] not in _FATES:
        return
    to = _text(recipient[1])
    passage.told[to] = (_FATES[status[1]], _text(status[2]).strip()[:500])
    if recipient[2]:
        others = passage.rewritten.setdefault(_text(recipient[2]), [])
        if to not in others:
            others.append(to)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
