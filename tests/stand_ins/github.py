"""GitHub's contents API on 127.0.0.1: as it behaves, and as badly as it can.

    with GitHubStandIn() as gh:
        gh.script(DROP_AFTER_COMMIT)      # the next PUT commits and then breaks the connection
        GitHubPublisher(gh.repository, gh.branch, TOKEN, base_url=gh.url)
        gh.files, gh.commits, gh.requests

Messages and statuses are those of the real one, also where they surprise: a sha for a path that
does not exist is ignored (201), a missing branch is reported before a wrong sha.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "ghp_stand-in-token"
BIG = 1_000_000  # bytes from which the real one leaves the content out
RULE = "Could not create file: Changes must be made through a pull request."
QUOTA = "API rate limit exceeded for user ID 1."
DENIED = "Resource not accessible by personal access token"
REDIRECT = {"Location": "/repositories/1/contents/"}


@dataclass(frozen=True)
class Act:
    """One misbehaviour: whether the change is made first, then what the client sees of it.

    ``message`` None is the honest answer under ``status`` (0: the honest one too); ``raw`` is a
    body sent as it is. "drop" closes the connection unanswered, "hang" waits until the client goes.
    """

    name: str
    status: int = 0
    message: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    commit: bool = False
    then: Literal["answer", "drop", "hang"] = "answer"
    raw: bytes | None = None

    def __str__(self) -> str:
        return self.name


WELL = Act("well", commit=True)
CONFLICT = Act("409", 409, "post.md does not match 0000000000000000000000000000000000000000")
RACED = Act("409 of the branch", 409, "is at 1111111 but expected 2222222")
PROTECTED = Act("409 of a rule", 409, RULE)
SHA_MISSING = Act("422 sha", 422, 'Invalid request.\n\n"sha" wasn\'t supplied.')
REFUSED = Act("422 refused", 422, "Repository rule violations found")
RATE_LIMITED = Act(
    "403 with Retry-After",
    403,
    "You have exceeded a secondary rate limit.",
    {"Retry-After": "7"},
)
EXHAUSTED = Act("403 with nothing left", 403, QUOTA, {"X-RateLimit-Remaining": "0"})
TOO_MANY = Act("429", 429, "Too many requests")
FORBIDDEN = Act("403 without rights", 403, DENIED, {"X-RateLimit-Remaining": "4999"})
UNAUTHORIZED = Act("401", 401, "Bad credentials")
NO_REPOSITORY = Act("404 repository", 404, "Not Found")
NO_BRANCH = Act("404 branch", 404, "Branch main not found")
BROKEN = Act("500", 500, "Server Error")
UNAVAILABLE = Act("503", 503, "Unavailable", {"Retry-After": "11"})
NOT_YET = Act("202", 202, "Accepted")
MOVED = Act("301", 301, "Moved Permanently", REDIRECT)
MOVED_WRITE = Act("307", 307, "Temporary Redirect", REDIRECT)
DROP = Act("drop", then="drop")
HANG = Act("time-out", then="hang")
DROP_AFTER_COMMIT = Act("drop after the commit", commit=True, then="drop")
HANG_AFTER_COMMIT = Act("time-out after the commit", commit=True, then="hang")
BAD_GATEWAY_AFTER_COMMIT = Act("502 after the commit", 502, commit=True, raw=b"<html>502</html>")
GARBAGE_AFTER_COMMIT = Act("garbage after the commit", commit=True, raw=b'{"content": {"sha"')


@dataclass(frozen=True)
class Commit:
    """One change that was made through the API; ``sha`` is the new blob's, "" for a removal."""

    path: str
    message: str
    sha: str


@dataclass(frozen=True)
class Seen:
    """One request as it arrived; ``body`` is its JSON, {} without one."""

    verb: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True)
class Reply:
    status: int
    data: Any


class GitHubStandIn:
    """One repository with one branch. ``files`` maps paths to bytes; ``commits`` and ``requests``
    are in order of arrival. ``url`` is the API's base, without a slash at the end.
    """

    def __init__(
        self, repository: str = "ana/blog", branch: str = "main", token: str = TOKEN
    ) -> None:
        self.repository = repository
        self.branch = branch
        self.token = token
        self.files: dict[str, bytes] = {}
        self.commits: list[Commit] = []
        self.requests: list[Seen] = []
        self.empty = False
        self._scripts: dict[str, deque[Act]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.github = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def script(self, *acts: Act, verb: str = "PUT") -> None:
        """The next requests with this verb meet these acts, one each; later ones fare well."""
        with self._lock:
            self._scripts[verb].extend(acts)

    def edit(self, path: str, data: bytes) -> None:
        """A person changes the file, with a commit that is not counted in ``commits``."""
        with self._lock:
            self.files[path] = data

    def count(self, verb: str) -> int:
        """How many requests with this verb have arrived."""
        with self._lock:
            return sum(seen.verb == verb for seen in self.requests)

    def serve(self, seen: Seen) -> tuple[Act, Reply]:
        """Record the request, change what is to be changed, and say how to answer."""
        with self._lock:
            self.requests.append(seen)
            script = self._scripts[seen.verb]
            act = script.popleft() if script else WELL
            reply = self._do(seen) if act.commit else Reply(200, {})
            if act.message is not None:
                reply = _error(act.status, act.message)
            return act, reply

    def _do(self, seen: Seen) -> Reply:
        if self.token and seen.headers.get("Authorization") != f"token {self.token}":
            return _error(401, "Bad credentials")
        prefix = f"/repos/{self.repository}"
        if seen.path != prefix and not seen.path.startswith(f"{prefix}/"):
            return _error(404, "Not Found")
        kind, _, rest = seen.path.removeprefix(prefix).strip("/").partition("/")
        if seen.verb == "GET" and kind == "":
            return Reply(200, {"full_name": self.repository, "default_branch": self.branch})
        if seen.verb == "GET" and kind == "branches":
            return self._get_branch(rest)
        if kind == "contents" and seen.verb in ("GET", "PUT", "DELETE"):
            return getattr(self, f"_{seen.verb.lower()}_file")(rest, seen)  # type: ignore[no-any-return]
        return _error(404, "Not Found")

    def _get_branch(self, name: str) -> Reply:
        if name != self.branch or self.empty:
            return _error(404, "Branch not found")
        return Reply(200, {"name": name, "commit": {"sha": "c" * 40}})

    def _get_file(self, path: str, seen: Seen) -> Reply:
        if self.empty:
            return _error(404, "This repository is empty.")
        if (ref := seen.query.get("ref", self.branch)) != self.branch:
            return _error(404, f"No commit found for the ref {ref}")
        if path in self.files:
            return Reply(200, self._describe(path, content=True))
        inside = sorted(name for name in self.files if name.startswith(f"{path}/"))
        if inside:
            return Reply(200, [self._describe(name, content=False) for name in inside])
        return _error(404, "Not Found")

    def _put_file(self, path: str, seen: Seen) -> Reply:
        if refusal := self._refusal(path, seen):
            return refusal
        status = 200 if path in self.files else 201
        self.files[path] = base64.b64decode(seen.body["content"])
        self.empty = False
        return self._commit(path, seen, status, self._describe(path, content=False))

    def _delete_file(self, path: str, seen: Seen) -> Reply:
        if refusal := self._refusal(path, seen):
            return refusal
        if path not in self.files:
            return _error(404, "Not Found")
        del self.files[path]
        return self._commit(path, seen, 200, None)

    def _refusal(self, path: str, seen: Seen) -> Reply | None:
        branch = seen.body.get("branch", self.branch)
        if branch != self.branch:
            return _error(404, f"Branch {branch} not found")
        if path not in self.files:
            return None
        if "sha" not in seen.body:
            return _error(422, 'Invalid request.\n\n"sha" wasn\'t supplied.')
        if seen.body["sha"] != _blob_sha(self.files[path]):
            return _error(409, f"{path} does not match {seen.body['sha']}")
        return None

    def _commit(self, path: str, seen: Seen, status: int, content: dict[str, Any] | None) -> Reply:
        sha = content["sha"] if content else ""
        self.commits.append(Commit(path, seen.body["message"], sha))
        return Reply(status, {"content": content, "commit": {"sha": "d" * 40}})

    def _describe(self, path: str, *, content: bool) -> dict[str, Any]:
        data = self.files[path]
        about = {
            "type": "file",
            "name": path.rpartition("/")[2],
            "path": path,
            "size": len(data),
            "sha": _blob_sha(data),
            "html_url": f"https://github.com/{self.repository}/blob/{self.branch}/{path}",
        }
        if content:
            small = len(data) <= BIG
            about["encoding"] = "base64" if small else "none"
            about["content"] = base64.b64encode(data).decode() if small else ""
        return about


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    github: GitHubStandIn


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65_536  # headers and body in one piece
    timeout = 30
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        act, reply = self.server.github.serve(self._read())
        if act.then == "hang":
            with suppress(OSError):
                self.connection.recv(1)  # returns when the client has gone
        if act.then != "answer":
            self.close_connection = True
            return
        body = json.dumps(reply.data).encode() if act.raw is None else act.raw
        self.send_response(act.status or reply.status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if act is EXHAUSTED:
            self.send_header("X-RateLimit-Reset", str(int(time.time()) + 90))
        for name, value in act.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _read(self) -> Seen:
        where = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(where.query).items()}
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else {}
        return Seen(self.command, unquote(where.path), query, dict(self.headers.items()), body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def _error(status: int, message: str) -> Reply:
    return Reply(
        status,
        {
            "message": message,
            "documentation_url": "https://docs.github.com/rest/repos/contents",
            "status": str(status),
        },
    )


def _blob_sha(data: bytes) -> str:
    """Git's, worked out apart from the code under test."""
    return hashlib.sha1(b"blob " + str(len(data)).encode() + b"\x00" + data).hexdigest()
