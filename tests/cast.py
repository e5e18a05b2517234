"""The named cast: the newsletter "weekly", its issue, ana who edits it; bob, carla, davi who read it."""

from __future__ import annotations

from datetime import date
from typing import Any

from django.contrib.auth.models import Permission, User

from newsletter.models import (
    Issue,
    Newsletter,
    Subscriber,
    Subscription,
    address_key,
    database_now,
)

NAMES = ("bob", "carla", "davi", "eva", "fabio", "gina", "hugo", "ines")
MARKDOWN = "Hello **readers**.\n\n[A link](https://example.org/one)\n"
PASSWORD = "only-for-tests"


def newsletter(**over: Any) -> Newsletter:
    """The newsletter "weekly": no podcast, no blog."""
    values: dict[str, Any] = {
        "slug": "weekly",
        "name": "The Weekly",
        "from_email": "ana@news.example.org",
        "postal_address": "1 Main Street, Lisbon",
    }
    return Newsletter.objects.create(**{**values, **over})


def issue(newsletter: Newsletter, **over: Any) -> Issue:
    """A draft, due in the past."""
    values: dict[str, Any] = {
        "slug": "first-issue",
        "title": "The first issue",
        "summary": "What happened.",
        "release_date": date(2026, 6, 1),
        "markdown": MARKDOWN,
    }
    return Issue.objects.create(newsletter=newsletter, **{**values, **over})


def approved(newsletter: Newsletter, **over: Any) -> Issue:
    """An issue that ana has approved."""
    found = issue(newsletter, **over)
    found.approve(actor="ana")
    return found


def readers(newsletter: Newsletter, n: int) -> list[Subscription]:
    """The first n of the cast, all confirmed; bob, carla, davi ... then reader9, reader10 ..."""
    names = [*NAMES[:n], *(f"reader{number}" for number in range(len(NAMES) + 1, n + 1))]
    people = [
        Subscriber(
            address=f"{name}@example.org",
            address_key=address_key(f"{name}@example.org"),
            name=name.capitalize(),
        )
        for name in names
    ]
    Subscriber.objects.bulk_create(people, batch_size=1000)
    now = database_now()
    rows = [
        Subscription(
            subscriber=person,
            newsletter=newsletter,
            state="confirmed",
            consent_source="the cast",
            consent_at=now,
        )
        for person in people
    ]
    return Subscription.objects.bulk_create(rows, batch_size=1000)


def editor(username: str = "ana", *permissions: str) -> User:
    """A member of the staff. Without `permissions` (codenames): all of both apps."""
    user = User.objects.create_user(username, password=PASSWORD, is_staff=True)
    found = Permission.objects.filter(content_type__app_label__in=("newsletter", "delivery"))
    user.user_permissions.set(found.filter(codename__in=permissions) if permissions else found)
    return user
