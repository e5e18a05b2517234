"""Writes an issue whose copies have so many bytes: `python -m tests.bench.sized_issue FOLDER BYTES`, in a house.

first.md is for load_issue; copy.eml is one copy, as it follows the 354.
"""

from __future__ import annotations

import sys
from pathlib import Path

import django

FRONT = "---\ntitle: The issue first\nslug: first\ndate: 2026-06-01\nsummary: What it says\n---\n\n"
SENTENCE = (
    "The harbour was quiet in the morning, and the [ferry](https://example.org/ferry/{n}) left "
    "in time with *seven* people on board. "
)
WORD = "again "


def main(folder: Path, size: int) -> None:
    django.setup()
    sentences = words = 0
    while len(copy_of(body(sentences + 1, 0))) <= size:
        sentences += 1
    while len(copy_of(body(sentences, words + 1))) <= size:
        words += 1
    (folder / "first.md").write_text(FRONT + body(sentences, words))
    (folder / "copy.eml").write_bytes(copy_of(body(sentences, words)))


def body(sentences: int, words: int) -> str:
    paragraphs = [SENTENCE.format(n=n).strip() for n in range(sentences)]
    return "\n\n".join(["## A heading", *paragraphs, (WORD * words).strip()]) + "\n"


def copy_of(markdown: str) -> bytes:
    """The bytes of the first reader's copy; the database stays as it was."""
    from django.db import transaction

    from delivery.copies import Copies, Row
    from delivery.sending import compile_issue
    from newsletter.models import Newsletter
    from tests import cast

    with transaction.atomic():
        issue = cast.approved(Newsletter.objects.get(), slug="first", markdown=markdown)
        copies = Copies(compile_issue(issue))
        transaction.set_rollback(True)
    row = Row(500_000, "person500000@example.org", "Person 500000", "t" * 43)
    return copies.envelope(row).data


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
