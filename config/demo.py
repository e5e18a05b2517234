"""The demo's environment: everything of its own, below var/demo, whatever the shell has set."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

HOME = Path("var/demo")
ENV_FILE = HOME / "env"


def use_demo_environment() -> None:
    """Read the demo's own file and none of the shell's variables: a real database is never touched."""
    from config.environment import Environment

    os.chdir(Path(__file__).resolve().parent.parent)
    for name in Environment.model_fields:
        os.environ.pop(name, None)
    HOME.mkdir(parents=True, exist_ok=True)
    written = _read()
    written.setdefault("SECRET_KEY", secrets.token_urlsafe(50))
    web, smtp, podcast = _free_ports(written)
    values = {
        "SECRET_KEY": written["SECRET_KEY"],
        "DATABASE_URL": f"sqlite:///{HOME}/carteiro.sqlite3",
        "WITNESS_URL": f"{HOME}/witness",
        "PUBLIC_URL": f"http://127.0.0.1:{web}",
        "EMAIL_URL": f"smtp://127.0.0.1:{smtp}",
        "SANDBOX_DIR": f"{HOME}/mailbox",
        "ALLOW_PRIVATE_URLS": "127.0.0.0/8",
        "PODCAST_POLL_SECONDS": "2",
        "LOG_FORMAT": "console",
        "LOG_LEVEL": "WARNING",
        "DEMO_PORTS": f"{web} {smtp} {podcast}",
    }
    ENV_FILE.touch(mode=0o600)
    ENV_FILE.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    os.environ["ENV_FILE"] = str(ENV_FILE)


def ports() -> tuple[int, int, int]:
    """The demo's ports: web, SMTP, podcast."""
    web, smtp, podcast = map(int, _read()["DEMO_PORTS"].split())
    return web, smtp, podcast


def _read() -> dict[str, str]:
    if not ENV_FILE.exists():
        return {}
    return dict(line.split("=", 1) for line in ENV_FILE.read_text().splitlines() if "=" in line)


def _free_ports(written: dict[str, str]) -> list[int]:
    """Those of the last run, so that its mails' links still work; others where they are taken."""
    wanted = [int(port) for port in written.get("DEMO_PORTS", "8000 8025 8001").split()]
    with_sockets = [_bind(port) for port in wanted]
    numbers = [listening.getsockname()[1] for listening in with_sockets]
    for listening in with_sockets:
        listening.close()
    return numbers


def _bind(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError:
        listening.bind(("127.0.0.1", 0))
    return listening
