"""The demo's podcast: a JSON document that says `pending` at first, and `ready` after a short wait."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

READY_AFTER = 5.0


class EpisodeServer:
    """Serves the document for one issue on loopback; the wait begins with the first question."""

    def __init__(self, port: int, issue_slug: str) -> None:
        asked: list[float] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(time.monotonic())
                ready = asked[-1] - asked[0] >= READY_AFTER
                answer = {
                    "status": "ready" if ready else "pending",
                    "issue": issue_slug,
                    "url": "https://podcast.example.org/episodes/1.mp3",
                    "title": "Episode 1: the letter carrier",
                    "duration": 1830,
                }
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
