from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser

from config.demo import ENV_FILE, HOME, ports
from delivery import release, sending
from delivery.management.following import follow, print_books
from delivery.sandbox.episode import EpisodeServer
from delivery.sandbox.mailbox import Mailbox
from newsletter.management.base import CarteiroCommand
from newsletter.models import Issue

READERS = 250
SAMPLE = Path(__file__).resolve().parents[2] / "sandbox" / "sample.md"
START_SECONDS = 60


class Command(CarteiroCommand):
    help = (
        "Take a sample issue through the whole week: podcast, blog, 250 mails into a sandbox, the books. The web UI "
        "stays up until Ctrl-C. A second run sends nothing again. All of it lies below var/demo."
    )
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--once", action="store_true", help="end after the books: 0 only when balanced"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _stop)
        call_command("migrate", verbosity=0)
        issue = self._prepare()
        with ExitStack() as house:
            self._start(house, issue)
            went = self._release(issue)
            self._tell(issue)
            if options["once"]:
                sys.exit(0 if went and self._is_right(issue) else 1)
            self._stay()

    def _prepare(self) -> Issue:
        """The newsletter, its readers and its issue, through the real commands; once."""
        blog = HOME / "blog"
        blog.mkdir(exist_ok=True)
        if not (blog / ".git").exists():
            subprocess.run(["git", "init", "--quiet", str(blog)], check=True)  # noqa: S603, S607
        found = Issue.objects.filter(newsletter__slug="demo", slug="first-round").first()
        if found:
            return found
        call_command(
            "create_newsletter",
            "demo",
            "--name=The Daily Round",
            "--from-email=ana@carteiro.example",
            "--from-name=Ana Carteira",
            "--postal-address=Carteiro, 1 Letter Lane, 1100-148 Lisbon, Portugal",
            f"--podcast=http://127.0.0.1:{ports()[2]}/episode.json",
            f"--folder={blog.resolve()}",
            stdout=self.stdout,
        )
        with tempfile.NamedTemporaryFile("w", suffix=".csv") as csv:
            csv.write("email,name\n")
            csv.writelines(
                f"reader{n:03}@readers.example,Reader {n}\n" for n in range(1, READERS + 1)
            )
            csv.flush()
            call_command("import_subscribers", csv.name, "--newsletter=demo", stdout=self.stdout)
        call_command(
            "load_issue", str(SAMPLE), "--newsletter=demo", "--approve", stdout=self.stdout
        )
        return Issue.objects.get(newsletter__slug="demo", slug="first-round")

    def _start(self, house: ExitStack, issue: Issue) -> None:
        web, smtp, podcast = ports()
        house.callback(EpisodeServer(podcast, issue.slug).stop)
        manage = [sys.executable, "manage.py"]
        house.enter_context(_Process("sandbox", [*manage, "sandbox", f"--port={smtp}"]))
        serve = [sys.executable, "-m", "gunicorn", "config.wsgi", "--threads=4"]
        site = _Process("web", [*serve, f"--bind=127.0.0.1:{web}", "--log-level=warning"])
        house.enter_context(site)
        self._wait_for(f"{settings.PUBLIC_URL}/sandbox/", site)
        house.enter_context(_Process("work", [*manage, "work"]))

    def _wait_for(self, url: str, process: _Process) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and process.is_alive():
            try:
                if httpx.get(url, trust_env=False).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.2)
        raise CommandError(f"The web server did not start: see {process.log}")

    def _release(self, issue: Issue) -> bool:
        self.stdout.write(release.start(issue, actor="demo", now=True))
        return follow(issue, self.stdout, sys.stdout.isatty())

    def _tell(self, issue: Issue) -> None:
        self.stdout.write("\nThe books")
        print_books(sending.books(issue), self.stdout)
        accepted = Mailbox(Path(settings.SANDBOX_DIR)).recipients()
        self.stdout.write(
            f"\nThe sandbox accepted {accepted.total()} mails for {len(accepted)} distinct readers."
        )
        self.stdout.write(f"The post: {HOME}/blog/{issue.post_path}")

    def _is_right(self, issue: Issue) -> bool:
        figures = sending.books(issue)
        return bool(figures["balanced"]) and figures["sent"] == issue.audience

    def _stay(self) -> None:
        password = secrets.token_urlsafe(12)
        user, _ = get_user_model().objects.get_or_create(
            username="admin", defaults={"is_staff": True, "is_superuser": True}
        )
        user.set_password(password)
        user.save()
        self.stdout.write(
            f"""
  Sandbox   {settings.PUBLIC_URL}/sandbox/
  Admin     {settings.PUBLIC_URL}/admin/    user admin, password {password} (of this run only)
  Commands  ENV_FILE={ENV_FILE} {sys.executable} manage.py help

Ctrl-C ends the demo."""
        )
        self.stdout.flush()
        try:
            signal.pause()
        except KeyboardInterrupt:
            self.stdout.write("Ending ...")


class _Process:
    """A part of the demo in a process of its own, with its log below var/demo."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.log = HOME / f"{name}.log"
        self._command = command

    def __enter__(self) -> _Process:
        with self.log.open("w") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self._command, stdout=log, stderr=log, start_new_session=True
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(settings.GRACE_SECONDS + 10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def is_alive(self) -> bool:
        return self._process.poll() is None


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
