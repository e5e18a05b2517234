"""System checks: the times must keep their order, or a slow server looks like a dead sender."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register("delivery")
def check_times(**_: Any) -> list[CheckMessage]:
    """E001: one turn of a sender and its last reply must end before django-q2's time-out. E002: likewise the grace.
    E003: a pool that hangs is found and replaced within 120 s, and a busy one is not taken for it."""
    found: list[CheckMessage] = []
    turn = settings.SENDER_SECONDS + settings.SMTP_TIMEOUT_SECONDS
    if turn >= settings.JOB_TIMEOUT_SECONDS:
        found.append(
            Error(
                f"SENDER_SECONDS + SMTP_TIMEOUT_SECONDS is {turn:g}, not below JOB_TIMEOUT_SECONDS "
                f"({settings.JOB_TIMEOUT_SECONDS}).",
                hint="Raise JOB_TIMEOUT_SECONDS, or lower the others.",
                id="delivery.E001",
            )
        )
    if settings.GRACE_SECONDS <= settings.SMTP_TIMEOUT_SECONDS:
        found.append(
            Error(
                "GRACE_SECONDS is not above SMTP_TIMEOUT_SECONDS: `work` would be stopped in mid-reply.",
                hint="Raise GRACE_SECONDS.",
                id="delivery.E002",
            )
        )
    if not settings.LEASE_SECONDS <= settings.WATCHDOG_SECONDS <= 90:
        found.append(
            Error(
                f"WATCHDOG_SECONDS is {settings.WATCHDOG_SECONDS:g}, not between LEASE_SECONDS "
                f"({settings.LEASE_SECONDS:g}) and 90.",
                hint="60 is a good value.",
                id="delivery.E003",
            )
        )
    return found
