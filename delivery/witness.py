"""The witness stands outside the database and knows how far it had come: one that was put back has forgotten it.

`House.releases` is raised, and committed, before the first byte of each sender's turn, and then written to the
witness: so a database is behind its witness only where it was put back (design, section 7).
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F

from newsletter.models import Transition, database_now, update_returning
from newsletter.models.gate import queue_for_house
from newsletter.models.transition import Subject

from . import claims, http, notifying, testimony
from .errors import EdgeError
from .models import Heartbeat, House, Lease
from .models.heartbeat import WITNESS
from .testimony import Word

log = structlog.get_logger(__name__)

VOUCHED = timedelta(seconds=150)  # the tick comes each minute: two were missed
LATELY = timedelta(seconds=120)  # a sender's turn that ended so long ago has a tick behind it
REPLACED_SECONDS = 10.0  # no checkpoint takes so long
MARGIN = 1000  # above what this host's witness says: another's may have been further
PUT_BACK = "it was put back from a backup, and has forgotten what it sent since"

_alone_since: datetime | None = None  # this process found no witness, and waits for a vouch


class WitnessTrouble(EdgeError):
    """The witness cannot be read or written: nothing is sent meanwhile, and it is tried again."""


class NotVouchedFor(WitnessTrouble):
    """A new host has no witness of its own yet, and waits for the word of one that lives."""


def look() -> House:
    """Compare the database with its witness, doubt it where it is behind; where the house stands now.

    Raises WitnessTrouble where nobody can tell.
    """
    replaced = _was_replaced()
    if connection.vendor == "sqlite" and not connection.in_atomic_block:
        connection.close()  # a file that was put in the place of ours is seen by a new connection only
    # In this order: who raises the number commits it before he writes it there.
    said, house = read(), House.read()
    if house.doubt:
        return house
    if why := replaced or _why_doubted(said, house):
        _doubt(why)
    elif said is None or not house.identity or said.identity != house.identity:
        _write(House.named())  # before the first release: from then on its absence tells something
    return House.read()


def testify() -> None:
    """Raise the number: here first, then in the witness. A crash between leaves the database ahead, which is right.

    Call it after `look`, before the first byte of a turn. Raises WitnessTrouble: then no byte may leave.
    """
    _write(_raised())


def keep() -> None:
    """The minute tick's part: look, let this host's witness know what the others have reached, vouch for new hosts.

    A copy of the database made in mid-turn must not look like its end: the number is raised after it once more.
    """
    try:
        house = look()
        if house.doubt or not house.releases:
            return
        _write(_raised() if _was_sent_lately() else house)
        Heartbeat.objects.update_or_create(
            work=_host(), lane=WITNESS, defaults={"at": database_now()}
        )
    except NotVouchedFor as waits:
        log.info("witness.waits", reason=waits.message)
    except WitnessTrouble as trouble:
        _tell(trouble)


def read() -> Word | None:
    """What this host's witness says; None where there is none. Raises WitnessTrouble."""
    with _trouble():
        return testimony.read(_place(), _fetch())


def rehearse() -> None:
    """Whether the witness can be read, and its file written; no word of it is changed. Raises WitnessTrouble."""
    read()
    with _trouble():
        testimony.rehearse(_place())


def confirm(*, actor: str, reason: str) -> House | None:
    """An operator's word that the database is to go on as it is. None where nobody doubts it.

    Raises WitnessTrouble: where it cannot be written the database is soon doubted again.
    """
    said = read()
    with transaction.atomic():
        queue_for_house()
        if not House.lock().doubt:
            return None
        house = House.named()
        house.releases = max(house.releases, said.releases if said else 0) + MARGIN
        old, house.doubt, house.doubted_at = house.standing, "", None
        house.save()
        _record(old, house.standing, f"confirmed: {reason}", actor)
        notifying.tell(
            "database_confirmed",
            "The database was confirmed",
            f"By {actor}: {reason}",
            level="warning",
            once=str(house.releases),
        )
    _write(house, over=True)
    return house


def _why_doubted(said: Word | None, house: House) -> str:
    """Why this database is not to be believed; empty where it is."""
    if said is None or (said.identity != house.identity and not said.releases):
        return _why_unknown() if house.releases else ""
    if house.identity and said.identity != house.identity:
        return "the witness is another database's: look at WITNESS_URL and DATABASE_URL"
    if house.releases < said.releases:
        return f"its number is {house.releases}, the witness has seen {said.releases}: {PUT_BACK}"
    return ""


def _was_replaced() -> str:
    """SQLite reads the log that a crash left into whatever file lies beside it, the number with it.

    A file changes at a checkpoint, right after its log: one that changed long after is another file.
    """
    name = connection.settings_dict["NAME"]
    if connection.vendor != "sqlite":
        return ""
    try:
        log_file, file = Path(f"{name}-wal").stat(), Path(name).stat()
    except OSError:
        return ""
    # By the times of change: a move or a copy of both keeps them together, and nobody can set them.
    if log_file.st_size and file.st_ctime - log_file.st_ctime > REPLACED_SECONDS:
        return f"{name} was replaced while its log ({name}-wal) lay beside it, which is mixed into it now"
    return ""


def _why_unknown() -> str:
    """No witness, though the database has sent before: a new host of a house that lives, or all of it was put back.

    A host that compares this very database with its own witness, after we began to wait, vouches for it.
    """
    global _alone_since
    now = database_now()
    since = _alone_since = _alone_since or now
    others = Heartbeat.objects.filter(lane=WITNESS).exclude(work=_host())
    if others.filter(at__gt=since).exists():
        _alone_since = None
        return ""
    if now - since < VOUCHED and others.filter(at__gt=now - VOUCHED).exists():
        raise NotVouchedFor("this host has no witness yet: it waits until another one vouches")
    _alone_since = None
    return f"it has sent before, and no witness knows how far it had come: perhaps {PUT_BACK}"


def _doubt(why: str) -> None:
    with transaction.atomic():
        queue_for_house()
        house = House.lock()
        if house.doubt:
            return
        now = database_now()
        House.objects.filter(pk=1).update(doubt=why[:500], doubted_at=now)
        _record(house.standing, "doubted", why, "witness")
        notifying.tell(
            "database_doubted",
            "This database is not believed: nothing leaves",
            f"The database: {why}.",
            "See what was sent since, cancel what was; then: confirm_database",
            level="error",
            once=f"{now:%Y%m%d%H%M%S}",
        )


def _raised() -> House:
    """The house with a number that nobody had before, committed."""
    ((releases, identity),) = update_returning(
        House.objects.filter(pk=1), ("releases", "identity"), releases=F("releases") + 1
    )
    return House(pk=1, releases=releases, identity=identity)


def _was_sent_lately() -> bool:
    lately = database_now() - LATELY
    return Lease.objects.filter(name__startswith=claims.SENDERS, expires_at__gt=lately).exists()


def _write(house: House, *, over: bool = False) -> None:
    with _trouble():
        word = Word(house.identity, house.releases)
        testimony.write(_place(), word, _fetch(), over=over)


@contextmanager
def _trouble() -> Iterator[None]:
    try:
        yield
    except EdgeError as error:
        raise WitnessTrouble(f"{error.message}. Nothing is sent meanwhile") from None


def _tell(trouble: WitnessTrouble) -> None:
    notifying.tell(
        "witness_trouble",
        "The witness cannot be asked",
        trouble.message,
        "It goes on by itself. Look at WITNESS_URL.",
        level="error",
        once=f"{_host()}:{database_now():%Y%m%d%H}",
    )


def _record(old: str, new: str, reason: str, actor: str) -> None:
    Transition.objects.record(Subject.HOUSE, [1], old, new, reason, actor)


def _place() -> Path | str:
    url = settings.WITNESS_URL
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        return str(url)
    path = unquote(parts.path) if parts.scheme == "file" else url
    return Path(settings.BASE_DIR, path)


def _fetch() -> http.Fetch:
    return partial(http.fetch, allow_private=settings.ALLOW_PRIVATE_URLS)


def _host() -> str:
    """A host, with its witness: two on one machine are two. A digest, for the address may be a secret."""
    digest = hashlib.sha256(str(_place()).encode()).hexdigest()[:8]
    return f"{socket.gethostname()[:60]}:{digest}"
