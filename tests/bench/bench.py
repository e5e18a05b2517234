"""What every part is given: the database's name, whether it is a smoke run, and templates of filled databases."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Self

from tests.bench import filling
from tests.bench.sizes import MILLION, SENDERS, WINDOWS
from tests.house import House, a_house


class Bench:
    """A context manager: what it made is gone at its end, also after Ctrl-C."""

    def __init__(
        self,
        database: str,
        *,
        quick: bool,
        windows: tuple[int, ...] = WINDOWS,
        senders: tuple[int, ...] = SENDERS,
    ) -> None:
        """`windows` and `senders`: those that the part `wire` tries with each other."""
        self.database = database
        self.quick = quick
        self.windows = windows
        self.senders = senders
        self._made: dict[int, House] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def million(self) -> int:
        """A million, or what a smoke run takes for it."""
        return 3_000 if self.quick else MILLION

    def size(self, whole: int, quick: int) -> int:
        return quick if self.quick else whole

    def template(self, readers: int) -> House:
        """A house that nobody lives in: `weekly`, so many readers, the approved issue `first`. Made once."""
        if readers not in self._made:
            house = self._stack.enter_context(a_house(empty=True))
            filling.furnish(house, readers)
            self._made[readers] = house
        return self._made[readers]

    @contextlib.contextmanager
    def house(self, readers: int, **settings: str) -> Iterator[House]:
        """A copy of that template, with the leases of production."""
        template = self.template(readers)
        with a_house(template=template.database_url) as house:
            house.settings = {"LEASE_SECONDS": "30", **settings}
            os.sync()  # what the copying left to write is not the run's to wait for
            yield house

    def copy_of(self, readers: int) -> str:
        """The file with one copy of the template's issue, as it goes over the wire."""
        return str(self.template(readers).folder / "copy.eml")
