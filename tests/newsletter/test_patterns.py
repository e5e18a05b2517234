from __future__ import annotations

from datetime import date

import pytest
from django.core.exceptions import ValidationError

from newsletter.patterns import check_pattern, expand

MONDAY = date(2026, 3, 2)


def test_it_fills_every_placeholder() -> None:
    pattern = "content/{year}/{month}/{day}/{date}-{slug}/{slug}.md"
    expected = "content/2026/03/02/2026-03-02-{hi}/{hi}.md"
    assert expand(pattern, slug="{hi}", date=MONDAY) == expected


def test_it_names_an_unknown_placeholder_and_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown \{title\}.*\{slug\}, \{date\}, \{year\}"):
        expand("posts/{title}.md", slug="s", date=MONDAY)


@pytest.mark.parametrize("pattern", ["a{", "a}", "{{slug}}", "{slug", "slug}"])
def test_it_refuses_a_stray_brace(pattern: str) -> None:
    with pytest.raises(ValueError, match="stray brace"):
        expand(pattern, slug="s", date=MONDAY)


@pytest.mark.parametrize("pattern", ["{}", "{slug!r}", "{date:%Y}", "{slug.upper}"])
def test_it_refuses_what_only_format_strings_know(pattern: str) -> None:
    with pytest.raises(ValueError, match="unknown"):
        expand(pattern, slug="s", date=MONDAY)


@pytest.mark.parametrize("pattern", ["posts/{title}.md", "posts/{slug.md"])
def test_a_newsletter_refuses_a_pattern_that_would_block_its_monday(pattern: str) -> None:
    with pytest.raises(ValidationError, match="known placeholders"):
        check_pattern(pattern)
