"""The environment: what is missing or malformed is refused at start, by its name and never with its value."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from config import environment

ROOT = Path(__file__).resolve().parent.parent.parent
GOOD = {
    "SECRET_KEY": "only-for-tests-" + "x" * 40,
    "PUBLIC_URL": "https://news.example.org",
    "EMAIL_URL": "smtp+starttls://ana:geheim@mail.example.org",
}
SECRET = "geheim"


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing but what is needed is set."""
    for name in environment.Environment.model_fields:
        monkeypatch.delenv(name, raising=False)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ENV_FILE", os.devnull)
    return monkeypatch


def refusal() -> str:
    with pytest.raises(ImproperlyConfigured) as caught:
        environment.read()
    return str(caught.value)


def manage(*words: str, **over: str) -> subprocess.CompletedProcess[str]:
    """`manage.py` with GOOD and `over`; an empty value stands for none."""
    known = environment.Environment.model_fields
    values = {name: value for name, value in os.environ.items() if name not in known}
    values |= {**GOOD, "ENV_FILE": os.devnull, **over}
    return subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=ROOT,
        env={name: value for name, value in values.items() if value},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_starts_with_three_variables(env: pytest.MonkeyPatch) -> None:
    found = environment.read()
    assert found.DATABASE_URL.startswith("sqlite:///")
    assert (found.DELIVERY_CONNECTIONS, found.DELIVERY_WINDOW, found.LEASE_SECONDS) == (8, 8, 30)
    assert (found.WORKERS_CRITICAL, found.WORKERS_DEFAULT, found.WORKERS_BULK) == (1, 1, 2)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_missing_variable_is_named(env: pytest.MonkeyPatch, name: str) -> None:
    env.delenv(name)
    assert refusal().splitlines()[1:] == [f"  {name}: is missing"]


@pytest.mark.parametrize("name", sorted(GOOD))
def test_an_empty_variable_is_a_missing_one(env: pytest.MonkeyPatch, name: str) -> None:
    env.setenv(name, "")
    assert f"{name}: is missing" in refusal()


def test_all_that_is_wrong_is_told_at_once(env: pytest.MonkeyPatch) -> None:
    env.delenv("SECRET_KEY")
    env.setenv("PUBLIC_URL", "news")
    env.setenv("DELIVERY_WINDOW", "many")
    told = refusal()
    assert all(name in told for name in ("SECRET_KEY", "PUBLIC_URL", "DELIVERY_WINDOW"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", SECRET),
        ("PUBLIC_URL", "news.example.org"),
        ("PUBLIC_URL", "https://"),
        ("PUBLIC_URL", "https://b\u00fccher.example"),
        ("PUBLIC_URL", "https://news example.org"),
        ("PUBLIC_URL", "https://news.example.org/below"),
        ("PUBLIC_URL", f"https://ana:{SECRET}@news.example.org"),
        ("NOTIFY_EMAIL", "@"),
        ("PUBLIC_URL", "https://news.example.org:port"),
        ("PUBLIC_URL", "https://news.example.org/?a=1"),
        ("EMAIL_URL", f"mail://ana:{SECRET}@mail.example.org"),
        ("EMAIL_URL", f"smtps://ana:{SECRET}@"),
        ("EMAIL_URL", f"smtps://ana:{SECRET}@mail.example.org:{SECRET}"),
        ("EMAIL_URL", f"smtps://ana:{SECRET}@mail.example.org/{SECRET}"),
        ("DATABASE_URL", f"mysql://ana:{SECRET}@db/carteiro"),
        ("DATABASE_URL", "sqlite://carteiro"),
        ("DATABASE_URL", f"postgres://ana:{SECRET}@db"),
        ("DATABASE_URL", f"postgres://ana:{SECRET}@db/carteiro?{SECRET}=1"),
        ("DISCORD_WEBHOOK_URL", f"discord/{SECRET}"),
        ("SLACK_WEBHOOK_URL", f"slack/{SECRET}"),
        ("NOTIFY_EMAIL", "ana"),
        ("ALLOW_PRIVATE_URLS", "everything"),
        ("GITHUB_API_URL", "ftp://github"),
        ("DELIVERY_CONNECTIONS", "0"),
        ("DELIVERY_WINDOW", "-1"),
        ("DELIVERY_WINDOW", "1.5"),
        ("DELIVERY_RATE", "-0.5"),
        ("DELIVERY_RATE", "fast"),
        ("WORKERS_BULK", "0"),
        ("LEASE_SECONDS", "0"),
        ("LEASE_SECONDS", "soon"),
        ("DEBUG", "perhaps"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_a_malformed_variable_is_named_and_not_quoted(
    env: pytest.MonkeyPatch, name: str, value: str
) -> None:
    env.setenv(name, value)
    told = refusal()
    assert told.splitlines()[1].startswith(f"  {name}: ")
    assert len(told.splitlines()) == 2
    assert SECRET not in told


@pytest.mark.parametrize("name", ["LEASE_SECONDS", "DELIVERY_RATE"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_number_is_a_number(env: pytest.MonkeyPatch, name: str, value: str) -> None:
    env.setenv(name, value)
    assert name in refusal()


@pytest.mark.parametrize("url", ["smtp://mail.example.org", "smtp://10.0.0.5:25"])
def test_plain_smtp_leaves_this_machine_only_on_purpose(env: pytest.MonkeyPatch, url: str) -> None:
    env.setenv("EMAIL_URL", url)
    assert "?insecure=1" in refusal()
    env.setenv("EMAIL_URL", f"{url}?insecure=1")
    assert environment.read().EMAIL_URL.endswith("insecure=1")


@pytest.mark.parametrize("host", ["127.0.0.1:2525", "localhost", "[::1]:25"])
def test_plain_smtp_on_this_machine_is_fine(env: pytest.MonkeyPatch, host: str) -> None:
    env.setenv("EMAIL_URL", f"smtp://{host}")
    found = environment.read().EMAIL_URL
    assert found == f"smtp://{host}"


def test_a_public_url_has_no_slash_at_its_end(env: pytest.MonkeyPatch) -> None:
    env.setenv("PUBLIC_URL", "https://news.example.org/")
    assert environment.read().PUBLIC_URL == "https://news.example.org"


def test_private_networks_are_opened_by_name(env: pytest.MonkeyPatch) -> None:
    assert environment.read().ALLOW_PRIVATE_URLS == ()
    env.setenv("ALLOW_PRIVATE_URLS", "10.1.0.0/16, ::1/128")
    assert [str(n) for n in environment.read().ALLOW_PRIVATE_URLS] == ["10.1.0.0/16", "::1/128"]
    env.setenv("ALLOW_PRIVATE_URLS", "1")
    assert environment.read().ALLOW_PRIVATE_URLS == environment.PRIVATE


def test_sqlite_keeps_what_it_committed_and_takes_its_turn() -> None:
    options = environment.database("sqlite:///var/x.sqlite3")["OPTIONS"]
    assert options["transaction_mode"] == "IMMEDIATE"
    assert "journal_mode=WAL" in options["init_command"]
    assert "synchronous=FULL" in options["init_command"]


def test_a_postgres_uri_is_read_as_libpq_reads_it() -> None:
    found = environment.database(
        "postgresql://ana:ge%40heim@db.example.org:5433/carteiro?sslmode=require"
    )
    assert (found["NAME"], found["USER"], found["PASSWORD"]) == ("carteiro", "ana", "ge@heim")
    assert (found["HOST"], found["PORT"]) == ("db.example.org", "5433")
    assert found["OPTIONS"] == {
        "sslmode": "require",
        "connect_timeout": "10",
        "tcp_user_timeout": "20000",
    }
    assert (found["CONN_MAX_AGE"], found["CONN_HEALTH_CHECKS"]) == (None, True)


def test_the_environment_prints_no_secret(env: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_TOKEN", "ADDRESS_KEY"):
        env.setenv(name, SECRET)
    for name in ("DISCORD_WEBHOOK_URL", "SLACK_WEBHOOK_URL"):
        env.setenv(name, f"https://example.org/{SECRET}")
    env.setenv("DATABASE_URL", f"postgres://ana:{SECRET}@db/carteiro")
    printed = repr(environment.read())
    assert SECRET not in printed
    assert GOOD["SECRET_KEY"] not in printed


def test_the_file_that_env_file_names_is_read(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "house.env"
    file.write_text(
        "DELIVERY_WINDOW=3\nGITHUB_TOKEN='a # b'\nPUBLIC_URL=https://file.example.org\n"
    )
    env.setenv("ENV_FILE", str(file))
    found = environment.read()
    assert (found.DELIVERY_WINDOW, found.GITHUB_TOKEN) == (3, "a # b")
    assert (
        found.PUBLIC_URL == "https://news.example.org"
    )  # the environment itself has the last word


def test_a_command_without_its_environment_exits_2_and_names_what_is_missing() -> None:
    done = manage("check", SECRET_KEY="")
    assert done.returncode == 2
    assert "  SECRET_KEY: is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_with_a_malformed_secret_exits_2_and_keeps_it_to_itself() -> None:
    done = manage("check", EMAIL_URL=f"smtps://ana:{SECRET}@host:{SECRET}")
    assert done.returncode == 2
    assert "  EMAIL_URL: " in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_plain_smtp_to_elsewhere_stops_a_command() -> None:
    done = manage("check", EMAIL_URL="smtp://mail.example.org")
    assert (done.returncode, "?insecure=1" in done.stderr) == (2, True)


def test_a_deployment_with_https_has_nothing_to_mend() -> None:
    done = manage("check", "--deploy", "--fail-level", "INFO", SECRET_KEY="aB3$xY9!" * 8)
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


@pytest.mark.parametrize(
    ("over", "found"),
    [
        ({"SENDER_SECONDS": "120"}, "delivery.E001"),
        ({"GRACE_SECONDS": "60"}, "delivery.E002"),
    ],
)
def test_times_out_of_order_stop_a_command(over: dict[str, str], found: str) -> None:
    done = manage("check", **over)
    assert done.returncode == 1
    assert found in done.stderr


def test_a_short_key_is_taken_on_this_machine_alone(env: pytest.MonkeyPatch) -> None:
    env.setenv("SECRET_KEY", "short")
    assert "SECRET_KEY" in refusal()
    env.setenv("PUBLIC_URL", "http://127.0.0.1:8000")
    assert environment.read().SECRET_KEY == "short"
