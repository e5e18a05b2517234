"""Every page that answers GET: `python -m tests.bench.site_pages` in a house; prints JSON: name -> path.

Found by walking the admin's models and the site's addresses, so that a new page is not forgotten: an argument that is
not known here is an error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import django
from django.urls import URLPattern, URLResolver, reverse

# What is no page, or has no row to show: name -> why.
LEFT_OUT = {
    "webhook": "takes POST",
    "sandbox": "off where mail is real",
    "sandbox_message": "off where mail is real",
    "sandbox_body": "off where mail is real",
    "metrics": "no page; asks for a token",
    "unknown_settle": "takes POST",
    "operations_lane": "takes POST",
    "operations_house": "takes POST",
    "operations_dead": "takes POST",
}
SEARCHED = {"readers": "q=person77@example.org"}
# Of the admin: what takes POST, and what asks before it deletes.
NO_PAGES = ("_act", "_delete")
IDS = {"object_id", "id"}
# What else an admin's page takes, and the words for it.
WORDS = {frozenset(): ("",), frozenset({"what"}): ("html", "text", "post")}


def main() -> None:
    django.setup()
    json.dump(dict([*own_pages(), *admin_pages()]), sys.stdout)


def own_pages() -> Iterator[tuple[str, str]]:
    from django.urls import get_resolver

    known = arguments()
    for name, pattern in addresses(get_resolver()):
        names = pattern.pattern.converters.keys()
        if name not in LEFT_OUT:
            missing = [word for word in names if word not in known]
            assert not missing, f"page {name}: say in {__file__} what {missing} are"
            yield name, reverse(name, kwargs={word: known[word] for word in names})
            if name in SEARCHED:
                yield f"{name}, searched", f"{reverse(name)}?{SEARCHED[name]}"


def addresses(resolver: URLResolver) -> Iterator[tuple[str, URLPattern]]:
    """Those with a name that are not the admin's own."""
    for found in resolver.url_patterns:
        if isinstance(found, URLResolver):
            if found.app_name != "admin":
                yield from addresses(found)
        elif found.name:
            yield found.name, found


def arguments() -> dict[str, Any]:
    """By the names that the addresses give them: of the issue that is being sent, and of one reader."""
    from newsletter.models import Issue, Subscription

    issue = Issue.objects.get(slug="first")
    row = Subscription.objects.filter(state="confirmed").order_by("id")[0]  # was owed every issue
    return {
        "newsletter": issue.newsletter.slug,
        "slug": issue.slug,
        "issue_id": issue.pk,
        "subscriber_id": row.subscriber_id,
        "token": row.token,
    }


def admin_pages() -> Iterator[tuple[str, str]]:
    """The index, and each model's pages: the list and the others without a row, those of its newest and oldest row."""
    from django.contrib import admin

    yield "admin", reverse("admin:index")
    for model, its in sorted(admin.site._registry.items(), key=lambda pair: str(pair[0])):
        rows = model._default_manager.order_by("pk").values_list("pk", flat=True)
        ends = {"newest": rows.last(), "oldest": rows.first()}
        for pattern in its.get_urls():
            name = getattr(pattern, "name", None)
            if name and not name.endswith(NO_PAGES):
                yield from pages_of(name, set(pattern.pattern.converters), ends)


def pages_of(name: str, arguments: set[str], ends: dict[str, Any]) -> Iterator[tuple[str, str]]:
    more = WORDS.get(frozenset(arguments - IDS))
    assert more is not None, f"page {name}: say in {__file__} what {arguments} are"
    if not arguments:
        yield f"admin: {name}", reverse(f"admin:{name}")
        return
    for end, pk in ends.items():
        for word in more if pk is not None else ():
            said = f"admin: {name} {word}".strip()
            yield f"{said}, {end} row", reverse(f"admin:{name}", args=[pk, word] if word else [pk])


if __name__ == "__main__":
    main()
