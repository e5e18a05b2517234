"""How soon a confirmation starts while a big issue drains: `python -m tests.measure_confirmations`.

Real processes: `work`, an SMTP server, and one that asks for a confirmation every half second. Prints median, 95th
percentile and longest of: the row's creation -> its first attempt; the request -> the server's yes. Ends with 1 where
the 95th percentile of the first is over the goal, with 2 where the drain was over before the questions were.
"""

from __future__ import annotations

import os
import sys

if "--database" in sys.argv:  # before the next import, which starts the database server
    os.environ["TEST_DATABASE"] = sys.argv[sys.argv.index("--database") + 1]

import tests.environment  # noqa: F401  isort: skip

import argparse
import contextlib
import statistics
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from tests.house import ON_POSTGRES, ROOT, House, a_house, newsletter_command, write_issue

GOAL_SECONDS = 2.0
WARM_UP = 1000  # mails of the issue that are out before the first question

FURNISH = """
import sys
import django
django.setup()
from newsletter.models import Newsletter, Subscription
from tests import cast
weekly = Newsletter.objects.get()
cast.readers(weekly, int(sys.argv[1]))
cast.NAMES = tuple(f"asker{n}" for n in range(int(sys.argv[2])))
askers = cast.readers(weekly, len(cast.NAMES))
Subscription.objects.filter(pk__in=[a.pk for a in askers]).update(
    state="pending", consent_at=None, consent_source="a form"
)
"""
ASK = """
import sys, time
import django
django.setup()
from newsletter.models import Subscription
for row in list(Subscription.objects.filter(state="pending").select_related("subscriber")):
    at = time.time()
    assert row.ask_to_confirm(actor="measure")
    print(row.subscriber.address, at, flush=True)
    time.sleep(max(0, at + float(sys.argv[1]) - time.time()))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"])
    parser.add_argument("--recipients", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two requests")
    parser.add_argument("--rate", type=float, default=0, help="DELIVERY_RATE")
    options = parser.parse_args()
    with a_sink() as sink:
        settings = {
            "EMAIL_URL": f"smtp://127.0.0.1:{port_of(sink)}",
            "DELIVERY_RATE": str(options.rate),
            "LEASE_SECONDS": "30",
        }
        with a_house(empty=True, **settings) as house:
            furnish(house, options.recipients, options.requests)
            sys.exit(measure(house, sink, options))


@contextlib.contextmanager
def a_sink() -> Iterator[subprocess.Popen[str]]:
    """The mail server, in a process of its own: its work is not the senders'."""
    command = [sys.executable, "-m", "tests.stand_ins.smtp_sink", "asker"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as sink:
        try:
            yield sink
        finally:
            sink.kill()


def port_of(sink: subprocess.Popen[str]) -> int:
    assert sink.stdout
    return int(sink.stdout.readline().split()[1])


def furnish(house: House, recipients: int, requests: int) -> None:
    write_issue(house.folder / "first.md", "first")
    load = ["load_issue", str(house.folder / "first.md"), "--newsletter", "weekly", "--approve"]
    house.manage_all(newsletter_command("weekly"), load)
    finish(house.python(FURNISH, str(recipients), str(requests)), 600)


def measure(house: House, sink: subprocess.Popen[str], options: argparse.Namespace) -> int:
    house.start_work()
    house.manage("release", "first", "--now")
    house.wait_until(lambda: sent(house) >= WARM_UP, 120)
    before, began = sent(house), time.monotonic()
    asked = pairs(finish(house.python(ASK, str(options.every)), 60 + 10 * options.requests))
    drained, seconds = sent(house) - before, time.monotonic() - began
    still_draining = house.state() == "sending"
    house.wait_until(lambda: settled(house) == options.requests, 60)
    taken = pairs(end(sink))
    print(
        f"{'postgres' if ON_POSTGRES else 'sqlite'}: {options.recipients} recipients, "
        f"{drained / seconds:.0f} a second while {len(asked)} confirmations were asked for in {seconds:.0f} s"
    )
    starts = [started - created for created, started in times(house)]
    figures("creation -> first attempt", starts)
    figures("request -> accepted", [taken[address] - at for address, at in asked.items()])
    if not still_draining:
        print("The drain was over before the questions were: more --recipients, please.")
        return 2
    return int(percentile(starts) > GOAL_SECONDS)


def finish(process: subprocess.Popen[str], seconds: float) -> str:
    out, errors = process.communicate(timeout=seconds)
    assert process.returncode == 0, errors
    return out


def end(sink: subprocess.Popen[str]) -> str:
    """Tell the sink to end; what it said."""
    out, _ = sink.communicate(timeout=10)
    return out


def pairs(lines: str) -> dict[str, float]:
    """Address -> Unix time, from lines of both."""
    return {address: float(at) for address, at in map(str.split, lines.splitlines())}


def sent(house: House) -> int:
    return int(house.value("SELECT count(*) FROM delivery_emaildelivery WHERE status = 'sent'"))


def settled(house: House) -> int:
    return int(house.value("SELECT count(*) FROM delivery_transactionalmail WHERE state = 'sent'"))


def times(house: House) -> list[tuple[float, float]]:
    """(created, first started) of each confirmation, in Unix time."""
    rows = house.query("SELECT created_at, started_at FROM delivery_transactionalmail")
    return [(unix(created), unix(started)) for created, started in rows]


def unix(value: Any) -> float:
    """A time as either database gives it."""
    at = datetime.fromisoformat(str(value))
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def figures(name: str, found: list[float]) -> None:
    print(
        f"  {name:<26} median {statistics.median(found):6.3f} s  p95 {percentile(found):6.3f} s  "
        f"longest {max(found):6.3f} s  ({len(found)})"
    )


def percentile(found: list[float]) -> float:
    return sorted(found)[int(0.95 * (len(found) - 1))]


if __name__ == "__main__":
    main()
