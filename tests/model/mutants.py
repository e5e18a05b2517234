"""Tables with one line changed for the worse: the exploration must object to each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from delivery.moves import FAILED, PENDING, SENDING, SENT, UNKNOWN, Need

from .ledger_model import TABLE, Bounds, Table

SMALL = Bounds(recipients=1, resends=1)  # enough to find each of them


def _changed(name: str, **values: Any) -> Table:
    return {**TABLE, name: replace(TABLE[name], **values)}


def _without(name: str, need: Need) -> Table:
    return _changed(name, needs=TABLE[name].needs - {need})


def _also_from(name: str, *old: str) -> Table:
    return _changed(name, old=(*TABLE[name].old, *old))


MUTANTS: dict[str, Table] = {
    "lost rows are sent again": _changed("lose", new=PENDING),
    "rows of the living are called lost": _without("lose", Need.ORPHANED),
    "no reply means not accepted": _changed("doubt", new=PENDING),
    "the fence is ignored": _without("start", Need.LEASE),
    "consent is read at the freeze only": _without("start", Need.CONSENT),
    "pause and cancel are ignored": _without("start", Need.MAY_SEND),
    "an unknown row is started": _also_from("start", UNKNOWN),
    "what is on the wire is started": _also_from("start", SENDING),
    "what is on the wire is skipped": _also_from("skip_cancelled", SENDING),
    "what is on the wire expires": _also_from("expire", SENDING),
    "any attempt's acceptance counts": _without("accept", Need.ATTEMPT),
    "any attempt gives the row back": _without("give_back", Need.ATTEMPT),
    "any attempt's refusal counts": _without("refuse", Need.ATTEMPT),
    "who wants it is skipped": _without("skip_unwilling", Need.NO_CONSENT),
    "a refusal unsends": _also_from("refuse", SENT),
    "a failed row is given back": _also_from("give_back", FAILED),
    "a sent row is resent": _also_from("resend", SENT),
    "silence is evidence of failure": _without("prove_failed", Need.EVIDENCE),
    "silence is evidence of success": _without("prove_sent", Need.EVIDENCE),
    "nobody finds the lost": _changed("lose", old=()),
    "cancelled rows stay": _changed("skip_cancelled", old=()),
}
