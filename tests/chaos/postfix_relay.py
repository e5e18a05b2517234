"""A real Postfix as a relay on loopback, in a temporary folder: nothing of the system's own Postfix is read or changed.

    with a_relay(to_port=2525) as relay:
        send(..., relay.url)
        relay.log.read_text()

It needs Debian's package `postfix`, and root, which Postfix's master insists on.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DAEMONS = Path("/usr/lib/postfix/sbin")
QUEUES = "active bounce corrupt defer deferred flush hold incoming maildrop pid private public saved trace"
MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
daemon_directory = {daemons}
command_directory = /usr/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = relay.example.org
mydestination =
alias_maps =
local_recipient_maps =
local_transport = error:nobody lives here
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_tls_security_level = none
smtp_tls_security_level = none
smtp_dns_support_level = disabled
relayhost = [127.0.0.1]:{to_port}
maillog_file = {folder}/mail.log
maillog_file_prefixes = {folder}
minimal_backoff_time = 2s
maximal_backoff_time = 2s
queue_run_delay = 2s
{more}
"""
MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Relay:
    def __init__(self, folder: Path, port: int) -> None:
        self.log = folder / "mail.log"
        self.url = f"smtp://127.0.0.1:{port}"
        self._queue = folder / "queue"

    def wait_until_idle(self, seconds: float = 60.0) -> None:
        """All that it has taken has been tried; what was deferred may still lie there."""
        end = time.monotonic() + seconds
        while self._untried():
            assert time.monotonic() < end, f"{self._untried()} messages are still in its queue"
            time.sleep(0.1)

    def _untried(self) -> int:
        queues = ("maildrop", "incoming", "active")
        return sum(path.is_file() for name in queues for path in (self._queue / name).rglob("*"))


@contextmanager
def a_relay(to_port: int, **settings: str) -> Iterator[Relay]:
    """Takes mail for anybody on a port of its own, and passes it to 127.0.0.1:`to_port`. `settings` are main.cf's."""
    folder = Path(tempfile.mkdtemp(prefix="carteiro-relay-"))
    port = _free_port()
    _furnish(folder, port, to_port, settings)
    master = subprocess.Popen(
        [DAEMONS / "master", "-d", "-c", folder / "etc"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_port(port)
        yield Relay(folder, port)
    finally:
        master.terminate()
        master.wait(10)
        _end(master.pid)
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait_for_port(port: int, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < end, "it does not answer"
            time.sleep(0.05)


def _furnish(folder: Path, port: int, to_port: int, settings: dict[str, str]) -> None:
    """What Postfix demands of its folders: who owns them, and who may write there."""
    owner, group = pwd.getpwnam("postfix").pw_uid, grp.getgrnam("postdrop").gr_gid
    folder.chmod(0o755)
    for name in ("etc", "data", "queue", *(f"queue/{queue}" for queue in QUEUES.split())):
        (folder / name).mkdir(mode=0o755 if name in ("etc", "queue", "queue/pid") else 0o700)
    for name in ("data", *(f"queue/{queue}" for queue in QUEUES.split() if queue != "pid")):
        os.chown(folder / name, owner, -1)
    for name, mode in (("public", 0o710), ("maildrop", 0o730)):
        os.chown(folder / "queue" / name, owner, group)
        (folder / "queue" / name).chmod(mode)
    more = "\n".join(f"{name} = {value}" for name, value in settings.items())
    main = MAIN.format(folder=folder, daemons=DAEMONS, to_port=to_port, more=more)
    (folder / "etc" / "main.cf").write_text(main)
    (folder / "etc" / "master.cf").write_text(MASTER.format(port=port))


def _end(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
