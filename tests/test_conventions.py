"""What holds for all of the code, kept by a test instead of by memory."""

from __future__ import annotations

import importlib
import inspect
import io
import pkgutil
import re
from pathlib import Path

import pytest
from django.core.management import call_command, load_command_class

from config.environment import Environment
from delivery.queue.registry import REGISTRY

ROOT = Path(__file__).resolve().parent.parent
APPS = ("newsletter", "delivery")
COMMANDS = sorted(
    (app, found.name)
    for app in APPS
    for found in pkgutil.iter_modules([str(ROOT / app / "management" / "commands")])
)
# What scripts rely on (issue 2).
PROMISED = {
    "create_newsletter",
    "demo",
    "import_subscribers",
    "ledger",
    "load_issue",
    "recover_deliveries",
    "release",
    "safety_net",
    "send",
    "send_test",
    "work",
}
SCALARS = ("int", "str", "bool", "float")
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|data|srcset)\s*=\s*["']?(?:https?:)?//"""
    r"""|<link\b[^>]*?\bhref\s*=\s*["']?(?:https?:)?//"""
    r"""|@import|url\(\s*["']?(?:https?:)?//""",
    re.IGNORECASE,
)
INLINE = re.compile(r"<script(?![^>]*\bsrc=)|\son\w+\s*=|javascript:", re.IGNORECASE)


def templates() -> list[Path]:
    folders = (ROOT / "templates", *(ROOT / app / "templates" for app in APPS))
    return sorted(p for folder in folders for p in folder.rglob("*") if p.is_file())


def stylesheets() -> list[Path]:
    return sorted(p for app in APPS for p in (ROOT / app / "static").rglob("*.css"))


def test_every_command_that_was_promised_is_there() -> None:
    assert {name for _, name in COMMANDS} >= PROMISED


@pytest.mark.parametrize(("app", "name"), COMMANDS)
def test_every_command_has_help_and_says_what_its_arguments_are(app: str, name: str) -> None:
    command = load_command_class(app, name)
    assert len(command.help) > 20
    assert command.help.rstrip().endswith(".")
    usual = {"-h", "--version", "--verbosity", "--settings", "--pythonpath", "--traceback"}
    usual |= {"--no-color", "--force-color", "--skip-checks"}
    parser = command.create_parser("manage.py", name)
    for action in parser._actions:
        names = set(action.option_strings)
        obvious = action.dest in ("file", "newsletter", "language", "json", "slug")
        assert names & usual or action.help or obvious, f"{name}: {action.dest} has no help"


def test_every_variable_of_the_environment_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    missing = [name for name in Environment.model_fields if f"`{name}`" not in readme]
    assert missing == []


def test_the_readme_knows_no_variable_that_is_gone() -> None:
    readme = (ROOT / "README.md").read_text()
    listed = re.findall(r"^\|\s*`([A-Z][A-Z_]+)`", readme, re.MULTILINE)
    assert set(listed) - {*Environment.model_fields, "ENV_FILE"} == set()


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [name for _, name in COMMANDS if not re.search(rf"\b{name}\b", readme)] == []


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    out = io.StringIO()
    call_command("makemigrations", "--check", "--dry-run", stdout=out)
    assert "No changes detected" in out.getvalue()


def test_there_are_jobs() -> None:
    importlib.import_module("delivery.jobs")
    assert len(REGISTRY) >= 10


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_job_takes_plain_ids_that_survive_json(name: str) -> None:
    body = REGISTRY[name].body
    for parameter in inspect.signature(body).parameters.values():
        assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD, parameter
        assert parameter.annotation in SCALARS, parameter


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_job_is_a_few_lines_that_call_somebody(name: str) -> None:
    source = inspect.getsource(REGISTRY[name].body)
    assert len(source.splitlines()) <= 12


def test_no_template_makes_a_request_to_elsewhere() -> None:
    found = templates()
    assert len(found) > 10
    texts = {path.relative_to(ROOT): path.read_text() for path in [*found, *stylesheets()]}
    assert [path for path, text in texts.items() if LOADED.search(text)] == []


def test_no_template_has_a_script_of_its_own() -> None:
    """The policy forbids it: it would not run."""
    assert [p.name for p in templates() if INLINE.search(p.read_text())] == []


def test_no_page_of_ours_has_a_style_that_the_policy_forbids() -> None:
    pages = [path for path in templates() if "emails" not in path.parts]
    style = re.compile(r"<style\b|\sstyle\s*=", re.IGNORECASE)
    assert [path.name for path in pages if style.search(path.read_text())] == []
