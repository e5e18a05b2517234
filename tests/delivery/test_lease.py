"""Leases: one owner at a time, by the database's clock, and a fence that only goes up."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection
from pytest_django import Settings

from delivery.models import Lease
from newsletter.models import database_now

pytestmark = pytest.mark.django_db


def acquired(name: str = "sender:1:0") -> Lease:
    lease = Lease.acquire(name)
    assert lease
    return lease


def expire(lease: Lease) -> None:
    Lease.objects.filter(pk=lease.pk).update(expires_at=database_now() - timedelta(seconds=1))


def test_a_lease_has_one_owner() -> None:
    acquired()
    assert Lease.acquire("sender:1:0") is None


def test_another_name_is_another_lease() -> None:
    acquired()
    assert Lease.acquire("sender:1:1")


def test_it_lasts_as_long_as_the_setting_says(settings: Settings) -> None:
    settings.LEASE_SECONDS = 300
    left = Lease.objects.get(pk=acquired().pk).expires_at - database_now()
    assert timedelta(seconds=295) < left <= timedelta(seconds=300)


def test_a_lease_that_is_over_can_be_acquired_at_once_with_a_higher_fence() -> None:
    first = acquired()
    expire(first)
    second = acquired()
    assert (second.pk, second.fence) == (first.pk, first.fence + 1)
    assert second.token != first.token


def test_a_released_lease_is_free_at_once() -> None:
    first = acquired()
    first.release()
    assert acquired().fence == first.fence + 1


def test_it_is_renewed_by_its_owner() -> None:
    lease = acquired()
    soon = database_now() + timedelta(seconds=1)
    Lease.objects.update(expires_at=soon)
    assert lease.renew()
    assert Lease.objects.get().expires_at > soon


def test_it_is_not_renewed_once_it_is_over() -> None:
    lease = acquired()
    expire(lease)
    assert not lease.renew()
    assert not Lease.objects.held().exists()


def test_the_loser_neither_renews_nor_frees_it() -> None:
    loser = acquired()
    expire(loser)
    winner = acquired()
    loser.release()
    assert not loser.renew()
    assert winner.mine().held().exists()


def test_its_holder_is_named_for_people() -> None:
    acquired()
    assert ":" in Lease.objects.get().holder


@pytest.mark.django_db(transaction=True)
def test_of_many_who_want_it_at_once_one_gets_it() -> None:
    gate = threading.Barrier(4)
    got: list[Lease | None] = []

    def want() -> None:
        gate.wait(10)
        got.append(Lease.acquire("sender:1:0"))
        connection.close()

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(got) == 4
    assert sum(lease is not None for lease in got) == 1
