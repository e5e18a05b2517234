"""Postfix's own test server with each of its faults, against a real `work`: the ledger after each, and in the end.

    python -m tests.chaos.postfix_sink            # needs smtp-sink (Debian: apt install postfix; it need not run)

Each fault has so many seconds; then the sink comes back without it, the issue is resumed, and the rest goes out.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.chaos import script

FAULTS = (
    "-q .",
    "-q DATA",
    "-Q .",
    "-Q RCPT",
    "-r RCPT",
    "-r .",
    "-f RCPT",
    "-f .",
    "-f MAIL",
    "-f RCPT -B '550 5.1.1 no such user'",
    "-w 1",
)
SINK = shutil.which("smtp-sink") or "/usr/sbin/smtp-sink"
SHORT = {"SMTP_TIMEOUT_SECONDS": "5", "DELIVERY_RETRY_SECONDS": "1", "BREAKER_SECONDS": "1"}
REASONS = """
SELECT status, reason, count(*) FROM delivery_emaildelivery GROUP BY status, reason ORDER BY status, reason
"""
STANDING = "SELECT paused_reason, blocked_reason FROM newsletter_issue"


@contextlib.contextmanager
def sink(port: int, fault: str, folder: Path) -> Iterator[None]:
    """It writes every message that it got to the end into one file below `folder`."""
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    command = [
        SINK,
        *user,
        *shlex.split(fault),
        "-D",
        f"{folder}/taken",
        f"127.0.0.1:{port}",
        "200",
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield
    finally:
        process.kill()
        process.wait()


def taken(folder: Path) -> Counter[str]:
    """How many messages the sink got for each recipient, whatever it answered."""
    text = "".join(file.read_text(errors="replace") for file in folder.iterdir())
    return Counter(re.findall(r"^X-Rcpt-Args: <([^>]*)>", text, re.MULTILINE))


def run(fault: str, seconds: float) -> bool:
    """One fault: what the ledger says; False where a reader got two accepted copies or the books do not balance."""
    from tests.house import READERS, a_house

    port = _free_port()
    with (
        tempfile.TemporaryDirectory() as name,
        a_house(EMAIL_URL=f"smtp://127.0.0.1:{port}", empty=False, **SHORT) as house,
    ):
        root = Path(name)
        root.chmod(0o755)
        house.start_work()
        with sink(port, fault, root / "bad"):
            house.manage("release", "first", "--now")
            with contextlib.suppress(AssertionError):
                house.wait_until(lambda: house.state() == "sent", seconds)
            sick = house.query(REASONS)
            held = " ".join(text for text in house.query(STANDING)[0] if text)
        with sink(port, "", root / "well"):
            if held and house.state() != "sent":
                house.manage("release", "first", "--resume")
            with contextlib.suppress(AssertionError):
                house.wait_until(lambda: house.state() == "sent", 60)
        well, twice = house.statuses(), _twice(house.addresses("sent"), root / "well")
        balanced = sum(well.values()) == READERS
    print(f"{fault:40} {_words(sick)}{f'; held: {held[:70]}' if held else ''}")
    print(f"{'':40} then well: {well}, {twice} sent twice, {'' if balanced else 'NOT '}balanced")
    return not twice and balanced


def _twice(sent: set[str], well: Path) -> int:
    return sum(count > 1 for address, count in taken(well).items() if address in sent)


def _words(rows: list[tuple[object, ...]]) -> str:
    return ", ".join(f"{count} {status}{f' ({why})' if why else ''}" for status, why, count in rows)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait_for(port: int) -> None:
    end = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert time.monotonic() < end, "smtp-sink does not answer"
        time.sleep(0.05)


def main() -> int:
    parser = script.parser(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("faults", nargs="*", default=FAULTS)
    arguments = parser.parse_args()
    script.prepare(arguments.database)
    well = [run(fault, arguments.seconds) for fault in arguments.faults]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
