"""Subscribers to CSV: what goes out comes in again, and a spreadsheet runs none of it."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given, settings
from hypothesis import strategies as st

from newsletter import exporting
from newsletter.csv_rows import GUARDED, guard, rows
from newsletter.exporting import export_subscribers
from newsletter.importing import Report, import_subscribers
from newsletter.management.progress import Progress
from newsletter.models import Newsletter, Subscriber, Subscription, Suppression, address_key
from tests import cast
from tests.house import a_house

pytestmark = pytest.mark.django_db


@pytest.fixture
def weekly() -> Newsletter:
    return cast.newsletter()


def exported(newsletter: Newsletter, state: str | None = "confirmed") -> str:
    return "".join(text for text, _ in export_subscribers(newsletter, state))


def cells(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def load(text: str, newsletter: Newsletter) -> Report:
    return import_subscribers(io.BytesIO(text.encode()), newsletter, source="test")


def people(newsletter: Newsletter) -> set[tuple[str, str]]:
    found = Subscription.objects.filter(newsletter=newsletter, state="confirmed")
    return set(found.values_list("subscriber__address", "subscriber__name"))


def states(newsletter: Newsletter, *wanted: str) -> None:
    for row, state in zip(Subscription.objects.order_by("pk"), wanted, strict=True):
        Subscription.objects.filter(pk=row.pk).update(state=state)


def test_each_row_says_who_and_by_which_consent(weekly: Newsletter) -> None:
    (bob,) = cast.readers(weekly, 1)
    (row,) = cells(exported(weekly))
    assert bob.consent_at is not None
    assert row == {
        "email": "bob@example.org",
        "name": "Bob",
        "state": "confirmed",
        "consent_source": "the cast",
        "consent_at": bob.consent_at.isoformat(),
        "unsubscribed_at": "",
    }


def test_what_goes_out_comes_in_again(weekly: Newsletter) -> None:
    names = ["José", '=cmd|"x"!A1', "'=2", "'quoted'", "+1", "@x", "a,b;c", 'Bob "the" Builder', ""]
    text = "".join(f"+r{n}@example.org\t{name}\n" for n, name in enumerate(names))
    load("email\tname\n" + text.replace('"', "'"), weekly)
    Subscriber.objects.filter(address="+r7@example.org").update(name='Bob "the" Builder')
    before = people(weekly)
    text = exported(weekly)
    Subscriber.objects.all().delete()
    assert load(text, weekly).added == len(names)
    assert people(weekly) == before


def test_no_cell_begins_as_a_formula_does(weekly: Newsletter) -> None:
    for start in "=+-@\t＝":
        Subscriber.objects.create(
            address=f"{start}{ord(start)}@example.org", address_key=start, name=f"{start}1+1"
        )
    Subscription.objects.bulk_create(
        Subscription(
            subscriber=person,
            newsletter=weekly,
            state="unsubscribed",
            consent_source="=1",
        )
        for person in Subscriber.objects.all()
    )
    for row in cells(exported(weekly, None)):
        assert not any(cell.startswith(tuple("=+-@\t＝")) for cell in row.values())


@settings(deadline=None)
@given(st.text(st.sampled_from("'=+-@ab＝"), max_size=6))
def test_the_guard_is_taken_off_exactly(cell: str) -> None:
    data = f'email,name\nx@example.org,"{guard(cell)}"\n'.encode()
    (row,) = rows(io.BytesIO(data), lambda line, why: pytest.fail(why))
    assert row.name == (cell if GUARDED.match(guard(cell)) else guard(cell))
    assert row.name == cell


def test_only_who_was_asked_for_is_in_it(weekly: Newsletter) -> None:
    cast.readers(weekly, 3)
    cast.readers(cast.newsletter(slug="monthly"), 0)
    states(weekly, "confirmed", "pending", "unsubscribed")
    for state, address in (("confirmed", "bob"), ("pending", "carla"), ("unsubscribed", "davi")):
        (row,) = cells(exported(weekly, state))
        assert (row["email"], row["state"]) == (f"{address}@example.org", state)
    assert len(cells(exported(weekly, None))) == 3


def test_all_of_them_read_back_confirm_nobody_who_is_no_reader(weekly: Newsletter) -> None:
    cast.readers(weekly, 4)
    states(weekly, "confirmed", "pending", "unsubscribed", "confirmed")
    Suppression.objects.create(address_key=address_key("eva@example.org"), reason="complaint")
    text = exported(weekly, None)
    Subscriber.objects.all().delete()
    Suppression.objects.all().delete()
    report = load(text, weekly)
    assert (report.added, report.problems) == (1, 3)
    assert people(weekly) == {("bob@example.org", "Bob")}


def test_the_suppressed_are_nobodys_readers(weekly: Newsletter) -> None:
    cast.readers(weekly, 2)
    Suppression.objects.create(address_key=address_key("bob@example.org"), reason="complaint")
    assert [row["email"] for row in cells(exported(weekly))] == ["carla@example.org"]


def test_the_erased_are_left_out(weekly: Newsletter) -> None:
    cast.readers(weekly, 2)
    Subscriber.objects.filter(name="Bob").update(address="", name="")
    assert [row["email"] for row in cells(exported(weekly, None))] == ["carla@example.org"]


def test_pages_give_everybody_once(weekly: Newsletter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "PAGE", 3)
    cast.readers(weekly, 8)
    pieces = list(export_subscribers(weekly))
    assert [number for _, number in pieces] == [0, 3, 3, 2]
    assert len({row["email"] for row in cells(exported(weekly))}) == 8


# The command


def run(*words: str) -> str:
    out = io.StringIO()
    call_command("export_subscribers", *words, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_the_command_writes_to_stdout(weekly: Newsletter) -> None:
    cast.readers(weekly, 2)
    states(weekly, "confirmed", "pending")
    assert run("weekly") == exported(weekly)
    assert run("weekly", "--state", "all") == exported(weekly, None)


def test_the_command_replaces_a_file_whole(weekly: Newsletter, tmp_path: Path) -> None:
    cast.readers(weekly, 2)
    file = tmp_path / "readers.csv"
    file.write_text("before")
    assert run("weekly", "--output", str(file)) == f"2 subscribers in {file}.\n"
    assert file.read_text() == exported(weekly)
    assert file.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_was_not_finished_leaves_the_earlier_one(
    weekly: Newsletter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast.readers(weekly, 2)
    file = tmp_path / "readers.csv"
    file.write_text("before")

    def full(lines: Iterable[Iterable[str]]) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "_lines", full)
    with pytest.raises(CommandError, match="cannot be written: No space left on device"):
        run("weekly", "--output", str(file))
    assert (file.read_text(), list(tmp_path.iterdir())) == ("before", [file])


@pytest.mark.parametrize("place", ["no/such/readers.csv", "."])
def test_a_place_that_takes_no_file_is_told(weekly: Newsletter, tmp_path: Path, place: str) -> None:
    with pytest.raises(CommandError, match=r"cannot be written|is no file") as told:
        run("weekly", "--output", str(tmp_path / place))
    assert told.value.returncode == 2


def test_a_reader_who_has_enough_is_no_error() -> None:
    with a_house() as house:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "export_subscribers", "weekly"],
            env=house.environment | {"PYTHONIOENCODING": "latin-1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        process.stderr.close()
        assert (process.wait(60), errors) == (1, b"")


def test_progress_is_told_now_and_then_with_the_rate() -> None:
    told: list[str] = []
    progress = Progress(told.append, every=0.0)
    for rows_so_far in (1000, 2000, 3000):
        progress("read", rows_so_far)
    assert told and all(line.endswith(" a second") for line in told)
    assert told[-1].startswith("3,000 rows read, ")


def test_what_is_done_soon_tells_no_progress() -> None:
    told: list[str] = []
    progress = Progress(told.append, every=3600.0)
    progress("read", 1000)
    progress("done", 1000)
    assert told == []
