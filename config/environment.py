"""Every knob of Carteiro, read from the environment (and from the file that ENV_FILE names, by default `.env`)."""

from __future__ import annotations

import os
import re
from base64 import b64decode
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from email_validator import EmailNotValidError, validate_email
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from delivery.transports.api_url import parse_email_url

Network = IPv4Network | IPv6Network
LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
PRIVATE: tuple[Network, ...] = (
    *LOOPBACK,
    *(ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")),
)


def _words(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _networks(value: object) -> object:
    """`1` allows loopback and the private ranges; else a list of networks such as `10.1.0.0/16`."""
    if not isinstance(value, str):
        return value
    if value.lower() in ("", "0", "false", "no"):
        return ()
    if value.lower() in ("1", "true", "yes"):
        return PRIVATE
    try:
        return tuple(ip_network(word) for word in value.replace(",", " ").split())
    except ValueError:
        raise ValueError("takes 1, 0, or networks such as 10.1.0.0/16 127.0.0.1/32") from None


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Environment(BaseSettings):
    """The fields are the variables; the README says what each is for."""

    model_config = SettingsConfigDict(case_sensitive=True, extra="ignore", env_ignore_empty=True)

    PUBLIC_URL: str
    SECRET_KEY: str = Field(min_length=1, repr=False)
    EMAIL_URL: str = Field(repr=False)
    ADDRESS_KEY: str = Field(default="", repr=False)
    DATABASE_URL: str = Field(default="sqlite:///var/carteiro.sqlite3", repr=False)
    ALLOWED_HOSTS: Words = ()
    BEHIND_PROXY: bool = False
    DEBUG: bool = False
    LOG_FORMAT: Literal["console", "json"] = "json"
    LOG_LEVEL: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    GITHUB_TOKEN: str = Field(default="", repr=False)
    GITHUB_API_URL: str = "https://api.github.com"
    DISCORD_WEBHOOK_URL: str = Field(default="", repr=False)
    SLACK_WEBHOOK_URL: str = Field(default="", repr=False)
    NOTIFY_EMAIL: Words = ()
    ALLOW_PRIVATE_URLS: Networks = ()
    DEADMAN_URL: str = Field(default="", repr=False)
    METRICS_TOKEN: str = Field(default="", repr=False)
    WEBHOOK_SECRET: str = Field(default="", repr=False)
    SNS_TOPIC_ARN: str = ""
    WITNESS_URL: str = Field(default="var/witness", repr=False)
    SANDBOX_DIR: str = ""

    DELIVERY_CONNECTIONS: Positive = 8
    DELIVERY_WINDOW: Positive = 8
    DELIVERY_RATE: float = Field(default=0, ge=0, allow_inf_nan=False)
    DELIVERY_DAILY_QUOTA: int = Field(default=0, ge=0)
    DELIVERY_ATTEMPTS: Positive = 5
    DELIVERY_RETRY_SECONDS: Seconds = 300
    DELIVERY_EXPIRY_HOURS: Positive = 72
    WORKERS_CRITICAL: Positive = 1
    WORKERS_DEFAULT: Positive = 1
    WORKERS_BULK: Positive = 2

    LEASE_SECONDS: Seconds = 30
    SENDER_SECONDS: Seconds = 60
    SMTP_TIMEOUT_SECONDS: Seconds = 60
    JOB_TIMEOUT_SECONDS: Positive = 180
    GRACE_SECONDS: Seconds = 75
    WATCHDOG_SECONDS: Seconds = 60
    BREAKER_SECONDS: Seconds = 30

    PODCAST_POLL_SECONDS: Seconds = 900
    PODCAST_ATTEMPTS: Positive = 16
    PODCAST_WAIT_SECONDS: Seconds = 4 * 3600
    PODCAST_LATE_SECONDS: Seconds = 48 * 3600
    PUBLISH_WAIT_SECONDS: Seconds = 2 * 3600
    LIVE_POLL_SECONDS: Seconds = 15
    LIVE_WAIT_SECONDS: Seconds = 30 * 60

    @field_validator("PUBLIC_URL", "GITHUB_API_URL")
    @classmethod
    def _is_base_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            host = parts.hostname
            _ = parts.port
        except ValueError:
            raise ValueError("is not a URL") from None
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
            raise ValueError("takes an http(s) URL such as https://news.example.org")
        return value.rstrip("/")

    @field_validator("PUBLIC_URL")
    @classmethod
    def _stands_in_links(cls, value: str) -> str:
        """It begins every link of every mail, also in headers; and nothing of ours answers below a path."""
        parts = urlsplit(value)
        if not re.fullmatch(r"[A-Za-z0-9._:\[\]-]+", parts.netloc):
            raise ValueError("takes a plain host, in ASCII (xn--...) and without user or password")
        if parts.path:
            raise ValueError("takes no path: Carteiro answers at the root of its host")
        return value

    @field_validator("SECRET_KEY")
    @classmethod
    def _is_not_guessed(cls, value: str, info: ValidationInfo) -> str:
        host = urlsplit(info.data.get("PUBLIC_URL", "")).hostname
        if len(value) < 32 and host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("needs at least 32 characters where others reach PUBLIC_URL")
        return value

    @field_validator("EMAIL_URL")
    @classmethod
    def _is_email_url(cls, value: str) -> str:
        parse_email_url(value)
        return value

    @field_validator("DISCORD_WEBHOOK_URL", "SLACK_WEBHOOK_URL", "DEADMAN_URL")
    @classmethod
    def _is_webhook(cls, value: str) -> str:
        if value and urlsplit(value).scheme not in ("http", "https"):
            raise ValueError("takes an https URL")
        return value

    @field_validator("WEBHOOK_SECRET")
    @classmethod
    def _is_webhook_secret(cls, value: str) -> str:
        """Resend's signing secret, or the user and password that Postmark sends."""
        try:
            signs = value.startswith("whsec_") and len(b64decode(value[6:], validate=True)) >= 16
        except ValueError:
            signs = False
        user, _, password = value.partition(":")
        if value and not signs and (value.startswith("whsec_") or not user or len(password) < 16):
            raise ValueError(
                "takes whsec_... (Resend), or user:password with 16 characters or more"
            )
        return value

    @field_validator("SNS_TOPIC_ARN")
    @classmethod
    def _is_topic(cls, value: str) -> str:
        from delivery.sns import is_topic  # brings cryptography, which few need here

        if value and not is_topic(value):
            raise ValueError("takes a topic's name: arn:aws:sns:REGION:ACCOUNT:NAME")
        return value

    @field_validator("WITNESS_URL")
    @classmethod
    def _is_witness(cls, value: str) -> str:
        """A path, a file: URL, or an address that answers GET and PUT."""
        parts = urlsplit(value)
        if parts.scheme not in ("", "file", "http", "https"):
            raise ValueError("takes a file such as var/witness, or an https URL")
        if parts.scheme in ("", "file") and (parts.netloc or not parts.path):
            raise ValueError("takes a file such as var/witness or file:///srv/witness")
        return value

    @field_validator("DATABASE_URL")
    @classmethod
    def _is_database_url(cls, value: str) -> str:
        database(value)
        return value

    @field_validator("NOTIFY_EMAIL")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            for word in value:
                validate_email(word, check_deliverability=False, test_environment=True)
        except EmailNotValidError:
            raise ValueError("takes addresses, divided by commas") from None
        return value


def database(url: str) -> dict[str, Any]:
    """Django's DATABASES entry for `sqlite:///relative`, `sqlite:////absolute` or `postgres://...` (libpq's URI)."""
    scheme = url.split(":", 1)[0]
    if scheme == "sqlite":
        return _sqlite(url)
    if scheme in ("postgres", "postgresql"):
        return _postgres(url)
    raise ValueError("takes sqlite:///file or postgres://user:password@host/name")


def _sqlite(url: str) -> dict[str, Any]:
    path = unquote(urlsplit(url).path)[1:]
    if urlsplit(url).netloc or not path:
        raise ValueError("takes sqlite:///file, or sqlite:////absolute/file")
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "CONN_MAX_AGE": None,
        # FULL: with NORMAL a power loss can take back a committed `sending`, and so make a second copy.
        # IMMEDIATE: a deferred transaction that turns into a writer fails at once with "database is locked".
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 30,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
        },
    }


def _postgres(url: str) -> dict[str, Any]:
    try:
        options: dict[str, Any] = dict(conninfo_to_dict(url))
    except ProgrammingError:
        raise ValueError("is not a PostgreSQL URI (postgres://user:password@host/name)") from None
    if not options.get("dbname"):
        raise ValueError("names no database (postgres://user:password@host/name)")
    # A server that is gone without a word must not hold a worker, or the watchdog, for the system's hours.
    for name, value in (("connect_timeout", "10"), ("tcp_user_timeout", "20000")):
        options.setdefault(name, value)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": options.pop("dbname"),
        "USER": options.pop("user", ""),
        "PASSWORD": options.pop("password", ""),
        "HOST": options.pop("host", ""),
        "PORT": str(options.pop("port", "")),
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": options,
    }


def read() -> Environment:
    """The environment, or ImproperlyConfigured with a line for each variable that is missing or malformed."""
    try:
        return Environment(_env_file=os.environ.get("ENV_FILE", ".env"))  # type: ignore[call-arg]
    except ValidationError as error:
        raise ImproperlyConfigured(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    """The values are left out: some are secrets."""
    lines = [f"  {e['loc'][0]}: {_reason(dict(e))}" for e in error.errors(include_input=False)]
    return "The environment is not right (the README lists every variable):\n" + "\n".join(lines)


def _reason(error: dict[str, Any]) -> str:
    if error["type"] == "missing":
        return "is missing"
    return str(error["msg"]).removeprefix("Value error, ")
