"""A wire of its own length: `python -m tests.bench.delaying_proxy PORT SECONDS`; prints the port where it listens.

Whatever comes in from either side goes out on the other so many seconds later: half of a round trip. It ends when it is
killed.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
from collections import deque


async def main(port: int, seconds: float) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, server, seconds), carry(answers, writer, seconds))

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=256)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """One direction. asyncio's sockets have no Nagle."""
    loop = asyncio.get_running_loop()
    waiting: deque[bytes] = deque()

    def deliver() -> None:
        data = waiting.popleft()
        if data:
            writer.write(data)
        else:
            writer.close()

    data = b"-"
    while data:
        try:
            data = await reader.read(65536)
        except OSError:
            data = b""
        waiting.append(data)
        loop.call_later(seconds, deliver)


if __name__ == "__main__":
    # epoll counts in milliseconds, and rounds up: too coarse for a tenth of 20.
    precise = asyncio.SelectorEventLoop(selectors.SelectSelector())
    precise.run_until_complete(main(int(sys.argv[1]), float(sys.argv[2])))
