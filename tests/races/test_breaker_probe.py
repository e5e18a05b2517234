"""Eight workers want the same service at the same moment; and the one that probes it is killed."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.db import connection

from delivery import breakers
from delivery.errors import BreakerOpen, EdgeError
from delivery.models import CircuitBreaker, Lease, Notification
from newsletter.models import database_now
from tests.house import House, a_house

WORKERS = 8

# Waits for a line, then says whether it was let through; it stays in the use until the next line, or its death.
USE = """
import django
django.setup()
from django.db import connection
from delivery import breakers
from delivery.errors import BreakerOpen
connection.ensure_connection()
print("ready", flush=True)
input()
try:
    with breakers.guard("github"):
        print("passed", flush=True)
        input()
except BreakerOpen:
    print("held", flush=True)
"""


def opened(left: timedelta) -> None:
    now = database_now()
    CircuitBreaker.objects.create(
        name="github",
        state="open",
        failures=5,
        opened=1,
        reason="it is down",
        until=now + left,
        changed_at=now - timedelta(hours=1),
    )


def all_at_once(use: Callable[[], None]) -> Counter[str]:
    """Eight threads with a connection each begin together; how often each thing came of it."""
    gate = threading.Barrier(WORKERS)
    came: Counter[str] = Counter()
    lock = threading.Lock()

    def work() -> None:
        connection.ensure_connection()
        gate.wait(10)
        try:
            use()
            what = "done"
        except (EdgeError, ZeroDivisionError) as error:
            what = type(error).__name__
        finally:
            connection.close()
        with lock:
            came[what] += 1

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert came.total() == WORKERS
    return came


def found() -> tuple[str, int, int]:
    row = CircuitBreaker.objects.get()
    return row.state, row.failures, row.opened


@pytest.mark.django_db(transaction=True)
def test_one_probe_passes_while_eight_want_to() -> None:
    opened(timedelta(seconds=-1))
    others_were_held = threading.Semaphore(0)
    inside: list[int] = []

    def use() -> None:
        try:
            with breakers.guard("github"):
                inside.append(1)
                for _ in range(WORKERS - 1):
                    assert others_were_held.acquire(timeout=20)
        except BreakerOpen:
            others_were_held.release()
            raise

    assert all_at_once(use) == {"done": 1, "BreakerOpen": WORKERS - 1}
    assert (len(inside), found()) == (1, ("closed", 0, 0))


@pytest.mark.django_db(transaction=True)
def test_a_probe_that_fails_holds_the_others_for_twice_as_long() -> None:
    opened(timedelta(seconds=-1))

    def use() -> None:
        with breakers.guard("github"):
            raise EdgeError("it is down")

    assert all_at_once(use) == {"EdgeError": 1, "BreakerOpen": WORKERS - 1}
    assert found() == ("open", 6, 2)


@pytest.mark.django_db(transaction=True)
def test_failures_at_the_same_time_are_all_counted_and_open_it_once() -> None:
    gate = threading.Barrier(WORKERS)

    def use() -> None:
        with breakers.guard("github"):
            gate.wait(20)  # all are inside before the first fails
            raise EdgeError("it is down")

    assert all_at_once(use) == {"EdgeError": WORKERS}
    assert found() == ("open", 5, 1)
    assert Notification.objects.filter(key__startswith="breaker_opened:").count() == 1


@pytest.mark.django_db(transaction=True)
def test_fewer_failures_at_the_same_time_are_counted_too() -> None:
    numbers = iter(range(WORKERS))
    gate = threading.Barrier(WORKERS)

    def use() -> None:
        with breakers.guard("github"):
            mine = next(numbers)
            gate.wait(20)
            if mine < breakers.FAILURES - 1:
                raise EdgeError("it is down")
            raise ZeroDivisionError

    came = all_at_once(use)
    assert came == {"EdgeError": 4, "ZeroDivisionError": 4}
    assert found() == ("closed", 4, 0)


@pytest.mark.django_db(transaction=True)
def test_eight_that_open_and_close_it_over_and_over_leave_no_probe_behind() -> None:
    opened(timedelta(seconds=-1))

    def use() -> None:
        for n in range(10):
            try:
                with breakers.guard("github"):
                    if n % 3:
                        raise EdgeError("it is down")
            except EdgeError:
                CircuitBreaker.objects.update(until=database_now() - timedelta(seconds=1))

    assert all_at_once(use) == {"done": WORKERS}
    assert not Lease.objects.held().exists()
    assert found()[0] != "half-open"


@pytest.fixture
def house() -> Iterator[House]:
    with a_house(empty=True, LEASE_SECONDS="5") as made:
        yield made


def test_a_probe_that_is_killed_blocks_nobody(house: House) -> None:
    past = "'2020-01-01 00:00:00'"
    house.change(
        "INSERT INTO delivery_circuitbreaker (name, state, failures, opened, reason, until, changed_at) "
        f"VALUES ('github', 'open', 5, 1, 'it is down', {past}, {past})"
    )
    prober, second, third = (house.python(USE) for _ in range(3))
    for process in (prober, second, third):
        assert hear(process) == "ready"
    assert (ask(prober), ask(second)) == ("passed", "held")
    prober.kill()
    house.wait_until(house.leases_are_over, 20)
    assert ask(third) == "passed"
    third.communicate("\n", timeout=20)
    assert house.value("SELECT state FROM delivery_circuitbreaker") == "closed"


def ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()
    return hear(process)


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()
