"""A real Postfix between `work` and the readers; `work` is killed in mid-send, and the relay's log settles what it can.

    python -m tests.chaos.relay_settle --kills 10 [--readers 4000] [--refuse 20] [--database postgres]

Behind the relay stands smtp-sink, which keeps every copy. With `--refuse N` it is a server that refuses every Nth
reader for good, and defers the one after. The last lines say how many rows were unknown, how many of them the log
settled, and whether the server behind the relay agrees with each. It needs Debian's package `postfix`, and root.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos import script
from tests.chaos.postfix_relay import Relay, a_relay
from tests.stand_ins.smtp import SmtpStandIn, say

if TYPE_CHECKING:
    from tests.house import House

Accepted = Callable[[], Counter[str]]


@contextmanager
def destination(readers: int, refuse: int) -> Iterator[tuple[int, Accepted]]:
    """Its port, and what it has accepted for whom."""
    if not refuse:
        with _smtp_sink() as found:
            yield found
        return
    with SmtpStandIn(keep_data=False) as server:
        for number in range(0, readers - 1, refuse):
            refused, deferred = (f"reader{n}@example.org" for n in (number, number + 1))
            server.on("rcpt", say("550 5.1.1 no such user"), recipient=refused)
            server.on("rcpt", say("451 4.2.0 come back later"), recipient=deferred)
        yield server.port, server.accepted


@contextmanager
def _smtp_sink() -> Iterator[tuple[int, Accepted]]:
    from tests.chaos.postfix_sink import _free_port, sink, taken

    port = _free_port()
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "taken"
        with sink(port, "", folder):
            yield port, lambda: taken(folder)


def run(kills: int, readers: int, refuse: int, seed: int) -> bool:
    """Print what was found; False where the log and the server behind the relay contradict each other."""
    with (
        destination(readers, refuse) as (port, accepted),
        a_relay(port) as relay,
    ):
        return _send_and_settle(relay, accepted, kills, readers, random.Random(seed))


def _send_and_settle(
    relay: Relay, accepted: Accepted, kills: int, readers: int, moments: random.Random
) -> bool:
    from tests.house import READERS, a_house, write_subscribers

    with a_house(EMAIL_URL=relay.url) as house:
        if readers > READERS:
            more = house.folder / "more.csv"
            write_subscribers(more, readers)
            house.manage("import_subscribers", str(more), "--newsletter", "weekly")
        house.manage("release", "first", "--now")
        share = readers // (kills + 1)
        for kill in range(kills):
            after = house.statuses().get("sent", 0) + moments.randrange(share // 2, share)
            work = house.start_work()
            house.wait_until(partial(_has_sent, house, after), 120)
            work.kill()
            house.wait_until(house.leases_are_over, 30)
            print(f"kill {kill + 1}: {house.statuses()}", flush=True)
        house.start_work()
        house.wait_until(partial(_is_sent, house), 300)
        relay.wait_until_idle()
        return _settle(house, relay, accepted)


def _has_sent(house: House, copies: int) -> bool:
    _unblock(house)
    return house.statuses().get("sent", 0) >= copies


def _is_sent(house: House) -> bool:
    _unblock(house)
    return house.state() == "sent"


def _unblock(house: House) -> None:
    """The third death of a sender's job blocks the issue: the operator says go on."""
    if house.value("SELECT blocked_reason FROM newsletter_issue"):
        house.manage("release", "first")


def _settle(house: House, relay: Relay, accepted: Accepted) -> bool:
    unknown = house.addresses("unknown")
    said = house.manage("settle_unknowns", "first", "--postfix-log", str(relay.log)).stdout
    copies = accepted()
    sent, failed, open_still = (unknown & house.addresses(s) for s in ("sent", "failed", "unknown"))
    wrong = [who for who in sent if copies[who] != 1] + [who for who in failed if copies[who]]
    arrived = sum(copies[who] > 0 for who in open_still)
    twice = sum(copies[who] > 1 for who in unknown | house.addresses("sent"))
    missing = {who for who in house.addresses("sent") if not copies[who]} - _kept(relay)
    print(said.strip())
    print(
        f"{len(unknown)} unknown: {len(sent) + len(failed)} settled, {len(wrong)} of them wrongly"
    )
    print(f"{len(open_still)} stay unknown: {arrived} of them arrived")
    print(f"of all readers: {twice} got it twice, {len(missing)} are sent and have nothing")
    return not wrong and not twice and not missing


def _kept(relay: Relay) -> set[str]:
    """Readers whose copy the relay took from us and could not get rid of."""
    found = re.findall(r" to=<([^>]*)>.* status=(\w+) ", relay.log.read_text(errors="replace"))
    return {who for who, status in dict(found).items() if status != "sent"}


def main() -> int:
    parser = script.parser(__doc__ or "")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--readers", type=int, default=4000)
    parser.add_argument("--refuse", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    script.prepare(arguments.database)
    good = run(arguments.kills, arguments.readers, arguments.refuse, arguments.seed)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
