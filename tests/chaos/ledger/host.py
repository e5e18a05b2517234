"""A host: one process that has imported everything, and forks senders, a clerk and an operator's deeds from it.

`python -m tests.chaos.ledger.host NAME LOG`: orders come in as lines of JSON, what happened goes out as such lines.
A fork costs some ten milliseconds, a start of Python two seconds: so thousands of senders can be killed in an hour.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import random
import select
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import django

SLOTS = 1000  # of the lives of one sender
END_SECONDS = 15.0
LATE_SECONDS = 0.5  # for what a stopped sender had in hand


@dataclass
class Child:
    role: str  # sender, clerk or deed
    slot: int = 0
    wake_at: float = 0.0  # it is stopped until then


class Host:
    def __init__(self, name: str, out: int) -> None:
        self.name = name
        self.out = out
        self.armed = mmap.mmap(-1, 1)  # shared with the children: whether blows are struck
        self.hear, self.words = os.pipe()
        self.children: dict[int, Child] = {}
        self.order: dict[str, Any] = {}
        self.blows: list[dict[str, Any]] = []
        self.playing = False
        self.lives = 0
        self.buffers = {0: b"", self.hear: b""}

    def run(self) -> None:
        """Until the orders end; a tick is short, and SIGCHLD cuts it."""
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker)
        selector = selectors.DefaultSelector()
        for source in (0, self.hear, wake):
            selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(0.05):
                if key.fd == wake:
                    os.read(wake, 4096)
                elif not self._read(key.fd):
                    self._kill()
                    return
            self._bury()
            self._continue_stopped()

    def _read(self, source: int) -> bool:
        got = os.read(source, 65536)
        *lines, self.buffers[source] = (self.buffers[source] + got).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if source == self.hear:
                self._heard(message)
            else:
                getattr(self, "do_" + message.pop("do"))(**message)
        return bool(got)

    def do_play(self, **order: Any) -> None:
        self.order, self.blows = order, order["blows"]
        self.armed[0] = 1
        self.playing, self.lives = True, 0
        for number in range(order["senders"]):
            self._fork_sender(number)
        self._fork_clerk()

    def do_deed(self, number: int, what: str, args: dict[str, Any], mutant: str) -> None:
        self._fork(Child("deed"), lambda: self._deed(number, what, args, mutant))

    def do_calm(self) -> None:
        self.armed[0] = 0

    def do_kill_clerk(self) -> None:
        for pid, child in self.children.items():
            if child.role == "clerk":
                os.kill(pid, signal.SIGKILL)

    def do_end(self) -> None:
        """Who is stopped goes on, at first as if nothing had been; turns come to an end; then the clerk goes too."""
        self.playing = False
        self.armed[0] = 0
        late = {pid for pid, child in self.children.items() if child.wake_at}
        alone = time.monotonic() + (LATE_SECONDS if late else 0)
        end = time.monotonic() + END_SECONDS
        while senders := self._pids("sender"):
            for pid in senders:
                self.children[pid].wake_at = 0.0
                with suppress(ProcessLookupError):
                    if pid in late and time.monotonic() < alone:
                        os.kill(pid, signal.SIGCONT)
                        continue
                    os.kill(pid, signal.SIGTERM)
                    os.kill(pid, signal.SIGCONT)
            time.sleep(0.02)
            self._bury()
            if time.monotonic() > end:
                self.say(trouble=f"{len(senders)} senders do not end within {END_SECONDS} s")
                break
        self._kill()
        while select.select([self.hear], [], [], 0)[0]:
            self._read(self.hear)  # the last words belong to this run, not to the next
        self.say(ended=True)

    def say(self, **event: Any) -> None:
        os.write(self.out, (json.dumps({"host": self.name, **event}) + "\n").encode())

    def _heard(self, word: dict[str, Any]) -> None:
        child = self.children.get(word["pid"])
        if word.get("blow") == "stop" and child:
            child.wake_at = time.monotonic() + 1.5 * self.order["settings"]["LEASE_SECONDS"] + 0.5
        if word.get("blow") == "kill_all":
            for pid in self._pids("sender"):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.say(**word)

    def _continue_stopped(self) -> None:
        for pid, child in self.children.items():
            if child.wake_at and time.monotonic() > child.wake_at:
                child.wake_at = 0.0
                os.kill(pid, signal.SIGCONT)

    def _bury(self) -> None:
        while self.children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self.children.pop(pid)
            if child.role == "sender":
                self.say(pid=pid, died=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)
            if self.playing and child.role == "sender":
                self._fork_sender(child.slot % SLOTS)
            elif self.playing and child.role == "clerk":
                self._fork_clerk()

    def _fork_sender(self, number: int) -> None:
        """With the next blows, to the first that it does not survive. Mostly with a slot of its own: nobody waits for
        the lease of the dead then."""
        self.lives += 1
        fresh = random.Random(f"{self.order['seed']} {self.name} {self.lives}").random() < 0.7
        slot = number + (SLOTS * self.lives if fresh else 0)
        blows = self._next_blows()
        self._fork(Child("sender", slot), lambda: self._send(slot, blows))

    def _next_blows(self) -> list[dict[str, Any]]:
        from tests.chaos.ledger.plan import FATAL

        mine: list[dict[str, Any]] = []
        while self.blows and not (mine and mine[-1]["action"] in FATAL):
            mine.append(self.blows.pop(0))
        return mine

    def _fork_clerk(self) -> None:
        self._fork(Child("clerk"), self._sweep)

    def _fork(self, child: Child, body: Callable[[], None]) -> None:
        pid = os.fork()
        if pid:
            self.children[pid] = child
            return
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            body()
        except BaseException:  # noqa: BLE001 - it goes to the oracle
            self.say(trouble=traceback.format_exc()[-2000:])
        finally:
            os._exit(0)

    def _send(self, slot: int, blows: list[dict[str, Any]]) -> None:
        from tests.chaos.ledger import senders
        from tests.chaos.ledger.failpoints import Failpoints
        from tests.chaos.ledger.plan import Blow

        self._prepare()
        mine = Failpoints([Blow(**blow) for blow in blows], self.armed, self.words)
        senders.send(self.order["issue"], slot, mine)

    def _sweep(self) -> None:
        from tests.chaos.ledger import senders
        from tests.chaos.ledger.failpoints import Failpoints

        self._prepare()
        senders.sweep(Failpoints([], self.armed, self.words))

    def _deed(self, number: int, what: str, args: dict[str, Any], mutant: str) -> None:
        from tests.chaos.ledger import mutations, operator

        mutations.apply(mutant)
        self.say(deed=number, **operator.do(what, **args))

    def _prepare(self) -> None:
        from delivery import identity
        from tests.chaos.ledger import mutations, senders

        identity._work = f"{self.name}:{os.getppid()}"
        socket.gethostname = lambda: self.name  # a second host is a second name
        senders.shorten(self.order["settings"])
        mutations.apply(self.order["mutant"])

    def _pids(self, role: str) -> list[int]:
        return [pid for pid, child in self.children.items() if child.role == role]

    def _kill(self) -> None:
        self.playing = False
        for pid in self.children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self.children:
            self._bury()
            time.sleep(0.005)


def main() -> None:
    out = os.dup(1)
    log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    django.setup()
    from tests.chaos.ledger import failpoints, mutations, operator, senders

    assert failpoints and mutations and operator and senders  # imported once, for all the children
    gc.collect()
    gc.freeze()
    host = Host(sys.argv[1], out)
    host.say(ready=True)
    host.run()


if __name__ == "__main__":
    main()
