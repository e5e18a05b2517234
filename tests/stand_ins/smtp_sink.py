"""An SMTP server that takes everything and keeps nothing, quick enough for a benchmark.

`python -m tests.stand_ins.smtp_sink asker` says on standard output where it listens (`port 12345`), then for each copy
whose recipient begins with `asker` when it was accepted, in Unix time (`asker3@example.org 1790000000.123456`). It ends
with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
import time

END = b"\r\n.\r\n"


class Dialogue(asyncio.Protocol):
    """One connection. What its client sends in advance (PIPELINING) is answered in order."""

    def __init__(self, told: bytes) -> None:
        self.told = told
        self.buffer = b""
        self.in_data = False
        self.recipient = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(b"220 sink.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while self._message() if self.in_data else self._command():
            pass

    def _command(self) -> bool:
        line, end, rest = self.buffer.partition(b"\r\n")
        if not end:
            return False
        self.buffer = rest
        self._answer(line[:4].upper(), line)
        return True

    def _answer(self, verb: bytes, line: bytes) -> None:
        if verb == b"RCPT":
            self.recipient = line.partition(b"<")[2].partition(b">")[0]
        if verb == b"DATA":
            self.in_data = True
            self.transport.write(b"354 go on\r\n")
        elif verb == b"EHLO":
            self.transport.write(b"250-sink.test\r\n250-8BITMIME\r\n250 PIPELINING\r\n")
        elif verb == b"QUIT":
            self.transport.write(b"221 bye\r\n")
            self.transport.close()
        else:
            self.transport.write(b"250 ok\r\n")

    def _message(self) -> bool:
        # A message that is nothing but its end is none of ours.
        _, end, rest = self.buffer.partition(END)
        if not end:
            return False
        self.buffer, self.in_data = rest, False
        self.transport.write(b"250 taken\r\n")
        if self.told and self.recipient.startswith(self.told):
            print(self.recipient.decode(), f"{time.time():.6f}", flush=True)
        return True


async def serve(told: bytes) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Dialogue(told), "127.0.0.1", 0, backlog=256)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(" ".join(sys.argv[1:]).encode()))
