"""Fixtures of all tests. The people and their newsletter are in `tests/cast.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connections
from django.test import Client
from pytest_django import Settings

from tests import cast


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """SQLite in a file of this run: in memory, its threads would meet "table is locked" at once."""
    database = connections["default"].settings_dict
    if database["ENGINE"].endswith("sqlite3"):
        database["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "test.sqlite3")


@pytest.fixture(autouse=True)
def _fresh_cache() -> None:
    cache.clear()


@pytest.fixture(autouse=True)
def _own_witness(settings: Settings, tmp_path: Path) -> None:
    """Each test begins with a database that has sent nothing; so does what stands outside it."""
    settings.WITNESS_URL = str(tmp_path / "witness")


@pytest.fixture
def ana(db: None) -> User:
    """The editor, who may do everything with issues."""
    return cast.editor()


@pytest.fixture
def editing(client: Client, ana: User) -> Client:
    """A browser in which ana is signed in."""
    client.force_login(ana)
    return client
