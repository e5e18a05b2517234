from __future__ import annotations

import os
import smtplib
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from delivery.errors import EdgeError
from delivery.sandbox.mailbox import Mailbox, NoSuchMessage
from delivery.sandbox.server import SandboxServer
from delivery.transports import Envelope
from delivery.transports.outcomes import Outcome, Verdict
from delivery.transports.smtp import SmtpConnection, SmtpTransport, parse_smtp_url

LETTER = (
    b"From: =?utf-8?q?Andr=C3=A9?= <news@example.com>\r\n"
    b"Subject: Hello =?utf-8?b?w6k=?=\r\n =?utf-8?q?t=C3=A9?=\r\n"
    b"MIME-Version: 1.0\r\n"
    b'Content-Type: multipart/alternative; boundary="b"\r\n\r\n'
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nplain \xc3\xa9\r\n"
    b"--b\r\nContent-Type: text/html; charset=iso-8859-1\r\n"
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\n<p>html =E9</p>\r\n--b--\r\n"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SandboxServer]:
    server = SandboxServer(tmp_path)
    server.start()
    yield server
    server.stop()


def connection(server: SandboxServer) -> SmtpConnection:
    url = parse_smtp_url(f"smtp://127.0.0.1:{server.port}")
    return SmtpTransport(url, local_hostname="sender.test").connect()


def send(server: SandboxServer, envelope: Envelope) -> Outcome:
    with closing(connection(server)) as opened:
        return opened.send(envelope)


def fill(mailbox: Mailbox, number: int) -> list[str]:
    return [
        mailbox.add("n@example.com", [f"r{at}@example.org"], b"Subject: Issue %d\r\n\r\nx\r\n" % at)
        for at in range(number)
    ]


def test_it_keeps_what_it_accepts(server: SandboxServer, tmp_path: Path) -> None:
    sending = connection(server)
    for name in ("alice", "bob"):
        envelope = Envelope("news@example.com", f"{name}@example.org", LETTER)
        assert sending.send(envelope).verdict is Verdict.SENT
    sending.close()
    assert Mailbox(tmp_path).recipients() == Counter({"alice@example.org": 1, "bob@example.org": 1})


def test_it_keeps_the_bytes_as_they_were_sent(server: SandboxServer, tmp_path: Path) -> None:
    send(server, Envelope("n@example.com", "bob@example.org", b"A: b\r\n\r\n.x\r\n"))
    (file,) = tmp_path.glob("*.eml")
    head, _, rest = file.read_bytes().partition(b"A: b")
    assert rest == b"\r\n\r\n.x\r\n"
    assert head.startswith(
        b"X-Sandbox-Mail-From: n@example.com\r\nX-Sandbox-Rcpt-To: bob@example.org\r\n"
    )


def test_it_takes_addresses_in_utf_8(server: SandboxServer, tmp_path: Path) -> None:
    send(server, Envelope("news@example.com", "zoë@example.org", LETTER))
    assert Mailbox(tmp_path).summaries().items[0].rcpt_to == "zoë@example.org"


def test_it_announces_its_size_limit(server: SandboxServer) -> None:
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        client.ehlo()
        assert client.esmtp_features["size"] == str(25 * 1024 * 1024)


def test_it_says_that_its_directory_cannot_be_written(tmp_path: Path) -> None:
    server = SandboxServer(tmp_path / "box")
    server.start()
    (tmp_path / "box").rmdir()
    outcome = send(server, Envelope("n@example.com", "bob@example.org", LETTER))
    server.stop()
    assert outcome.verdict is Verdict.RETRY_CHANNEL


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_it_binds_to_this_machine_only(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match="must be this machine"):
        SandboxServer(tmp_path, host)


def test_it_says_so_when_the_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = SandboxServer(tmp_path, port=taken.getsockname()[1])
        with pytest.raises(EdgeError, match="choose another port"):
            server.start()


def test_it_hangs_up_when_it_stops(server: SandboxServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as client:
        assert client.recv(1000).startswith(b"220")
        server.stop()
        assert client.recv(1000) == b""


def test_it_starts_again_on_the_same_port(server: SandboxServer) -> None:
    port = server.port
    server.stop()
    server.start()
    assert server.port == port


def test_it_ends_its_process_at_sigterm(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = f"from delivery.sandbox.server import run; run({str(tmp_path)!r}, port={port})"
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root)
    greeting = _greeting(port)
    process.terminate()
    assert (greeting[:3], process.wait(10)) == (b"220", 0)


def _greeting(port: int) -> bytes:
    end = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                return client.recv(1000)
        except ConnectionRefusedError:
            assert time.monotonic() < end, "the sandbox does not listen"
            time.sleep(0.02)


def test_it_lists_the_newest_first_by_pages(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path)
    keys = fill(mailbox, 7)
    page = mailbox.summaries(page=2, per_page=3)
    assert [item.key for item in page.items] == keys[::-1][3:6]
    assert (page.total, page.pages, page.number) == (7, 3, 2)


@pytest.mark.parametrize(("asked", "given"), [(0, 1), (-5, 1), (99, 3)])
def test_it_gives_the_nearest_page(tmp_path: Path, asked: int, given: int) -> None:
    mailbox = Mailbox(tmp_path)
    fill(mailbox, 7)
    assert mailbox.summaries(page=asked, per_page=3).number == given


@pytest.mark.parametrize(
    ("query", "found"), [("ISSUE 1", 1), ("r2@", 1), ("example.org", 3), ("é", 0)]
)
def test_it_searches_recipient_and_subject(tmp_path: Path, query: str, found: int) -> None:
    mailbox = Mailbox(tmp_path)
    fill(mailbox, 3)
    assert mailbox.summaries(query=query).total == found


def test_it_is_empty_where_there_is_no_directory(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path / "none")
    assert (mailbox.summaries().items, mailbox.count()) == ([], 0)


def test_it_decodes_a_message(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path)
    message = mailbox.get(mailbox.add("news@example.com", ["bob@example.org"], LETTER))
    assert message.summary.subject == "Hello été"
    assert message.summary.sender == "André <news@example.com>"
    assert message.summary.size == len(LETTER)
    assert message.text.strip() == "plain é"
    assert message.html.strip() == "<p>html é</p>"
    assert ("Subject", "Hello été") in message.headers
    assert message.source == LETTER.decode()


def test_it_believes_no_envelope_that_came_in_the_message(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path)
    forged = b"X-Sandbox-Rcpt-To: eve@example.org\r\nX-Sandbox-Received-At: now\r\n\r\nx"
    message = mailbox.get(mailbox.add("news@example.com", ["bob@example.org"], forged))
    assert message.summary.rcpt_to == "bob@example.org"
    assert message.source == forged.decode()


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\xff\xfe", b"no header", b"Subject: =?nope?b?!!?=\r\n\r\nx", b"Subject\r\n\r\n",
     b"Content-Type: multipart/mixed\r\n\r\nx", b"Content-Type: text/html; charset=\xff\r\n\r\n\xff",
     b"Content-Type: text/plain; charset=idna\r\n\r\n\xff", b"Content-Type: ;;;=\r\n\r\n" * 3,
     b"Content-Transfer-Encoding: base64\r\nContent-Type: text/html\r\n\r\n!!!",
     b"Content-Transfer-Encoding: x-uuencode\r\nContent-Type: text/html\r\n\r\nbegin\r\nx",
     b"".join(b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (n, n)
              for n in range(2000))],
    ids=range(12),
)  # fmt: skip
def test_it_shows_what_it_can_of_malformed_mail(tmp_path: Path, data: bytes) -> None:
    mailbox = Mailbox(tmp_path)
    message = mailbox.get(mailbox.add("n@example.com", ["bob@example.org"], data))
    assert message.source == data.decode("utf-8", "replace")
    assert mailbox.summaries(query="bob").total == 1


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "1", "0" * 20 + "-" + "0" * 6, "٠" * 20])
def test_it_has_no_message_for_a_wrong_key(tmp_path: Path, key: str) -> None:
    with pytest.raises(NoSuchMessage):
        Mailbox(tmp_path).get(key)


def test_it_ignores_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "notes.eml").write_text("hello")
    (tmp_path / ".00000000000000000001-000001.1.tmp").write_text("unfinished")
    assert Mailbox(tmp_path).count() == 0


def test_it_stays_quick_with_many_messages(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path)
    (key,) = fill(mailbox, 1)
    for number in range(9_999):  # links, because making 10,000 files takes longer than the test
        os.link(tmp_path / f"{key}.eml", tmp_path / f"{number:020d}-000000.eml")
    start = time.perf_counter()
    page = mailbox.summaries(page=100)
    assert time.perf_counter() - start < 0.5
    assert (len(page.items), mailbox.summaries(query="issue 0").total) == (50, 10_000)
