"""What a lane's pool takes from django-q2's table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django_q.conf import Conf
from django_q.models import OrmQ
from django_q.signing import SignedPackage
from django_q.tasks import async_task

from delivery import queue
from delivery.queue.broker import DelayedBroker, LaneBroker
from newsletter.models import database_now

pytestmark = pytest.mark.django_db
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Conf, "POLL", 0)
    yield


@pytest.fixture
def broker() -> LaneBroker:
    return LaneBroker("default", "default@host:1")


def put(name: str, seconds: float = -1, key: str = "default") -> None:
    at = database_now() + timedelta(seconds=seconds)
    async_task(name, broker=DelayedBroker(key, at))


def take(broker: LaneBroker) -> list[str]:
    """The functions of what it hands out."""
    return [SignedPackage.loads(payload)["func"] for _, payload in broker.dequeue() or []]


def take_all(broker: LaneBroker) -> list[str]:
    return [name for _ in range(10) for name in take(broker)]


def test_the_oldest_is_taken_first(broker: LaneBroker) -> None:
    for name, seconds in (("second", -5), ("third", -1), ("first", -9)):
        put(name, seconds)
    assert take_all(broker) == ["first", "second", "third"]


def test_the_pools_own_letters_come_before_the_lanes(broker: LaneBroker) -> None:
    put("lane", -60)
    put("own", -1, key="default@host:1")
    assert take_all(broker) == ["own", "lane"]


def test_anothers_letters_and_other_lanes_are_left(broker: LaneBroker) -> None:
    put("other host", key="default@host:2")
    put("other lane", key="bulk")
    assert take_all(broker) == []


def test_what_is_not_due_is_left(broker: LaneBroker) -> None:
    put("later", 60)
    assert take_all(broker) == []


def test_what_was_taken_is_not_taken_again(broker: LaneBroker) -> None:
    put("once")
    assert take_all(broker) == ["once"]
    assert OrmQ.objects.get().lock > database_now() + timedelta(seconds=600)


def test_one_of_two_who_saw_it_gets_it(broker: LaneBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    put("once")
    seen = OrmQ.objects.get()
    assert broker._take(seen)
    assert not broker._take(seen)


@pytest.mark.parametrize("payload", ["nonsense", "", "eyJhIjoxfQ:1tXyz:c2lnbmF0dXJl"])
def test_what_cannot_be_read_is_dropped_and_stops_nothing(broker: LaneBroker, payload: str) -> None:
    OrmQ.objects.create(key="default", payload=payload, lock=database_now() - 9 * SECOND)
    put("sound")
    assert take_all(broker) == ["sound"]
    assert OrmQ.objects.count() == 1


class Explosive:
    """Its pickle names what this version does not have: the signature is right, and loading raises."""

    def __reduce__(self) -> Any:
        return (_no_such_thing, ())


def _no_such_thing() -> None:
    raise ModuleNotFoundError("no module named carteiro_of_old")


def test_a_pickle_that_explodes_is_dropped_and_stops_nothing(broker: LaneBroker) -> None:
    """django-q2's pusher would die of it, be made anew, and die of it again."""
    payload = SignedPackage.dumps({"func": Explosive()})
    OrmQ.objects.create(key="default", payload=payload, lock=database_now() - 9 * SECOND)
    put("sound")
    assert take_all(broker) == ["sound"]


@pytest.mark.parametrize("what", ["a text", 7, None, {"func": "no.args"}])
def test_what_is_signed_and_no_task_is_dropped(broker: LaneBroker, what: object) -> None:
    payload = SignedPackage.dumps(what)
    OrmQ.objects.create(key="default", payload=payload, lock=database_now() - 9 * SECOND)
    put("sound")
    assert take_all(broker) == ["sound"]


def test_after_a_rotated_key_the_sweep_wakes_what_was_queued(
    broker: LaneBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.ensure("report", key="report:1", id=1)
    OrmQ.objects.update(lock=database_now() - SECOND)
    with monkeypatch.context() as patch:
        patch.setattr(Conf, "SECRET_KEY", "another" * 10)
        assert take_all(broker) == []
    assert not OrmQ.objects.exists()
    with monkeypatch.context() as patch:
        patch.setattr("delivery.queue.rows.WAKE_AGAIN_AFTER", timedelta())
        assert queue.recover() == 1
    assert OrmQ.objects.count() == 1
