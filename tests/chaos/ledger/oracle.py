"""The oracle: what must hold after each seed, said by witness, ledger and the operators' times together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from delivery.moves import STATUSES
from tests.chaos.ledger.scene import Facts

Violations = Iterator[str]
TRUNCATED = 0.002  # seconds: SQLite's times have milliseconds
ENDS = {"pause": "resume", "hold": "let_go"}
# Faults after which nobody can tell whether the copy was accepted; with PIPELINING the dot goes out with the body.
DOUBTFUL = ("dot", "body")


def judge(facts: Facts) -> list[str]:
    """For everything that is wrong: the invariant, a colon, what it is."""
    return [f"{check.__name__}: {said}" for check in INVARIANTS for said in check(facts)]


def copies_once(facts: Facts) -> Violations:
    for address, copies in _accepted(facts).items():
        if copies > 1:
            yield f"{address} has {copies} accepted copies"


def sent_has_copy(facts: Facts) -> Violations:
    accepted = _accepted(facts)
    for row in _rows(facts, "sent"):
        if not accepted[row["address"]]:
            yield f"{_told(row)}, and nobody accepted a copy"


def others_have_none(facts: Facts) -> Violations:
    accepted = _accepted(facts)
    for row in _rows(facts, "failed", "pending", "skipped"):
        if accepted[row["address"]]:
            yield f"{_told(row)}, and its copy was accepted"


def nobody_else_has_one(facts: Facts) -> Violations:
    strangers = _accepted(facts).keys() - {row["address"] for row in facts.rows}
    yield from (f"{address} is not in the audience" for address in strangers)


def unknown_only_after_kill_or_fault(facts: Facts) -> Violations:
    """What recovery gave up is due to who was struck; what a reply gave up, to the reply."""
    lost = [move for move in facts.moves if move["new"] == "unknown" and _by_recovery(move)]
    if lost and not _strikes(facts):
        yield f"{len(lost)} rows were given up by the recovery, and nobody was struck"
    stops = any("stop" in blow or "term" in blow for blow in facts.tally.blows)
    for row in _rows(facts, "unknown"):
        excused = any((phase, row["address"]) in facts.troubled for phase in DOUBTFUL)
        if row["reason"] != "sender_lost" and not excused and not stops:
            yield f"{_told(row)}, and the server had answered it"


def no_more_unknown_than_the_window(facts: Facts) -> Violations:
    """For each holder of a lease, and in all for each strike."""
    lost = [move for move in facts.moves if move["new"] == "unknown" and _by_recovery(move)]
    most = _strikes(facts) * facts.plan.window
    if len(lost) > most:
        yield f"{len(lost)} given up after {_strikes(facts)} strikes, window {facts.plan.window}"
    held = Counter(
        (row["sender_id"], row["fence"])
        for row in _rows(facts, "unknown")
        if row["reason"] == "sender_lost" and row["sender_id"]
    )
    for (sender, fence), rows in held.items():
        if rows > facts.plan.window:
            yield f"{rows} rows of one sender ({sender}, fence {fence}), window {facts.plan.window}"


def sums_equal_audience(facts: Facts) -> Violations:
    if facts.issue["audience"] != len(facts.rows) or len(facts.rows) != facts.plan.recipients:
        yield f"audience {facts.issue['audience']}, {len(facts.rows)} rows, {facts.plan.recipients} readers"
    if still := [_told(row) for row in _rows(facts, "sending", "pending")]:
        yield f"open at the end: {still[:3]}"


def the_tally_tells_the_ledger(facts: Facts) -> Violations:
    """What pages show instead of a count, added to by each who moved a row."""
    counted = Counter(row["status"] for row in facts.rows)
    for status in STATUSES:
        told = sum(figures[status] for figures in facts.figures)
        if told != counted[status]:
            yield f"{told} {status} by the tally, {counted[status]} by the rows"


def nothing_after_no(facts: Facts) -> Violations:
    """By the time of each row's mark, and by the arrivals at the witness."""
    window = facts.plan.window * facts.plan.senders * facts.plan.hosts
    for begin, end, what in _holds(facts):
        late = [row for row in facts.rows if begin < _time(row["sending_at"]) - TRUNCATED < end]
        yield from (f"{_told(row)} began after {what}" for row in late)
        # A sender that was killed and forked anew has a window of its own: only where nobody was struck is it told.
        arrived = {seen.address for seen in facts.seen if begin < seen.at < end}
        if len(arrived) > window and not _strikes(facts):
            yield f"{len(arrived)} copies came in after {what}"
    by_id = {row["id"]: row for row in facts.rows}
    for deed in facts.tally.deeds:
        if deed["what"] in ("unsubscribe", "suppress", "erase") and deed["came"]:
            row = by_id[deed["row"]]
            if _time(row["sending_at"]) - TRUNCATED > deed["after"]:
                yield f"{_told(row)} began after {deed['what']}"


def same_bytes(facts: Facts) -> Violations:
    digests = defaultdict(set)
    for seen in facts.seen:
        if seen.whole:
            digests[seen.address].add(seen.digest)
    for address, found in digests.items():
        if len(found) > 1:
            yield f"{address} was sent {len(found)} different copies"


def one_close(facts: Facts) -> Violations:
    ends = [move for move in facts.issue_moves if move["new"] == "sent" != move["old"]]
    if len(ends) > 1 or facts.reports > 1:
        yield f"closed {len(ends)} times, {facts.reports} reports"
    if facts.issue["state"] == "sent" and (len(ends), facts.reports) != (1, 1):
        yield f"sent, with {len(ends)} closes and {facts.reports} reports"


def one_request_an_attempt(facts: Facts) -> Violations:
    requests = Counter(seen.address for seen in facts.seen)
    for row in facts.rows:
        if requests[row["address"]] > row["attempt"]:
            yield f"{_told(row)}: {requests[row['address']]} copies in {row['attempt']} attempts"
    for deed in facts.tally.deeds:
        if deed["what"] == "ask_ses" and deed["came"] != 1:
            yield f"Amazon's API saw {deed['came']} requests of one attempt"


def commits_are_durable(facts: Facts) -> Violations:
    if facts.tally.soft:
        yield f"{len(facts.tally.soft)} turns with a connection that is {facts.tally.soft[0]!r}"


def it_comes_to_its_end(facts: Facts) -> Violations:
    if facts.issue["state"] not in ("sent", "cancelled"):
        yield f"the issue is {facts.issue['state']}"
    yield from facts.tally.troubles


INVARIANTS: tuple[Callable[[Facts], Violations], ...] = (
    copies_once,
    sent_has_copy,
    others_have_none,
    nobody_else_has_one,
    unknown_only_after_kill_or_fault,
    no_more_unknown_than_the_window,
    sums_equal_audience,
    the_tally_tells_the_ledger,
    nothing_after_no,
    same_bytes,
    one_close,
    one_request_an_attempt,
    commits_are_durable,
    it_comes_to_its_end,
)
OF_PROGRESS = it_comes_to_its_end.__name__


def _accepted(facts: Facts) -> Counter[str]:
    return Counter(seen.address for seen in facts.seen if seen.accepted)


def _rows(facts: Facts, *statuses: str) -> list[dict[str, Any]]:
    return [row for row in facts.rows if row["status"] in statuses]


def _told(row: dict[str, Any]) -> str:
    return f"{row['address']} is {row['status']} ({row['reason']}, attempt {row['attempt']})"


def _by_recovery(move: dict[str, Any]) -> bool:
    return bool(move["actor"] == "recovery")


def _strikes(facts: Facts) -> int:
    """What can cost a window: deaths, blows that their sender survived, leases that a busy machine let end."""
    survived = sum(n for blow, n in facts.tally.blows.items() if not blow.startswith("kill"))
    return facts.tally.deaths + survived + facts.tally.starved


def _holds(facts: Facts) -> Iterator[tuple[float, float, str]]:
    """From the commit of a pause to the next resume's beginning; from a cancel's to the end."""
    for deed in facts.tally.deeds:
        if deed["what"] == "cancel" and "was cancelled before" not in str(deed["came"]):
            yield deed["after"], float("inf"), "the cancel"
        elif deed["what"] in ENDS and deed["came"] is True:
            ends = [
                other["before"]
                for other in facts.tally.deeds
                if other["what"] == ENDS[deed["what"]] and other["after"] > deed["after"]
            ]
            yield deed["after"], min(ends, default=float("inf")), f"the {deed['what']}"


def _time(value: Any) -> float:
    """Unix time; 0 for never."""
    if value is None:
        return 0.0
    at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return at.timestamp() if at.tzinfo else at.replace(tzinfo=UTC).timestamp()
