"""confirm: how soon a confirmation goes out while a big issue drains."""

from __future__ import annotations

import time
from typing import Any

from tests.bench import machine, servers
from tests.bench.bench import Bench
from tests.bench.draining import Void, look, unix
from tests.bench.wire import work_settings
from tests.house import House

EVERY = 0.5  # seconds between two requests
WARM_UP = 1000  # mails of the issue that are out before the first one
ASK = """
import sys, time
import django
django.setup()
from newsletter.models import Newsletter, Subscription
from tests import cast
cast.NAMES = tuple(f"asker{n}" for n in range(int(sys.argv[1])))
rows = cast.readers(Newsletter.objects.get(), len(cast.NAMES))
Subscription.objects.filter(pk__in=[row.pk for row in rows]).update(
    state="pending", consent_at=None, consent_source="a form"
)
for row in rows:
    at = time.monotonic()
    assert row.ask_to_confirm(actor="bench")
    time.sleep(max(0, at + float(sys.argv[2]) - time.monotonic()))
"""
SENT = "SELECT count(*) FROM (SELECT 1 FROM delivery_emaildelivery WHERE status = 'sent' LIMIT {}) found"
SENDING = ("sending", "sent")
TIMES = "SELECT created_at, started_at, settled_at FROM delivery_transactionalmail"


def run(bench: Bench) -> dict[str, Any]:
    """Seconds from the request to the first attempt, and to the server's yes, by the database's clock."""
    requests = bench.size(60, 3)
    with (
        servers.a_sink() as port,
        bench.house(bench.million, **work_settings(port, 32, 2)) as house,
    ):
        found = measure(house, requests, warm_up=bench.size(WARM_UP, 1))
    if not (found["still_draining"] or bench.quick):
        raise Void("the drain was over before the questions were")
    return found


def measure(house: House, requests: int, warm_up: int) -> dict[str, Any]:
    house.start_work()
    house.manage("release", "first", "--now")
    house.wait_until(lambda: look(house) in SENDING and _sent(house, warm_up) >= warm_up, 300)
    program = house.python(ASK, str(requests), str(EVERY))
    _, errors = program.communicate(timeout=600)
    if program.returncode:
        raise Void(errors[-300:])
    still_draining = look(house) == "sending"
    house.wait_until(lambda: _settled(house) == requests, 60)
    rows = [tuple(map(unix, row)) for row in house.query(TIMES)]
    return {
        "requests": requests,
        "still_draining": still_draining,
        "to_first_attempt": machine.spread([started - created for created, started, _ in rows]),
        "to_accepted": machine.spread([settled - created for created, _, settled in rows]),
    }


def _sent(house: House, most: int) -> int:
    return int(house.value(SENT.format(most)))


def _settled(house: House) -> int:
    time.sleep(0.2)
    return int(house.value("SELECT count(*) FROM delivery_transactionalmail WHERE state = 'sent'"))
