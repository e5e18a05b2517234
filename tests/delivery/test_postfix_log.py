"""What a Postfix log says of messages: real lines of Postfix 3.7, and what can befall a log."""

from __future__ import annotations

import gzip
import io
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from delivery import postfix_log
from delivery.postfix_log import Account, Damaged, Fate

SHORT = Path(__file__).with_name("postfix_short_ids.log").read_bytes()
LONG = Path(__file__).with_name("postfix_long_ids.log").read_bytes()
READERS = ("bob", "carla", "davi", "eva", "fabio", "gina")
ENDS = {
    "bob": Fate.SENT,
    "carla": Fate.FAILED,  # 550 at RCPT
    "davi": Fate.FAILED,  # deferred until it expired
    "eva": Fate.FAILED,  # 554 at the dot
    "fabio": Fate.NOTHING,  # the client was gone before the end of DATA
    "gina": Fate.SENT,  # deferred first
}


def name(number: int) -> str:
    return f"<{number}.0123456789abcdef01234567@news.example.org>"


def is_ours(message_id: str) -> bool:
    return message_id.endswith(".0123456789abcdef01234567@news.example.org>")


def read(log: bytes | Iterable[bytes], wanted: Callable[[str], bool] = is_ours) -> Account:
    found = io.BytesIO(log).readlines() if isinstance(log, bytes) else log
    return postfix_log.read(found, is_ours, wanted)


def fates(log: bytes | Iterable[bytes]) -> dict[str, Fate]:
    account = read(log)
    return {who: fate_of(account, number, who)[0] for number, who in enumerate(READERS, 1)}


def fate_of(account: Account, number: int, who: str) -> tuple[Fate, str]:
    return account.fate(name(number), lambda address: address == f"{who}@example.net")


def syslog(*texts: str, at: str = "Nov 22 11:08:56") -> bytes:
    return "".join(f"{at} relay postfix/{text}\n" for text in texts).encode()


def passage(queue_id: str, *ends: str, number: int = 1, taken: bool = True) -> list[str]:
    """The lines of one message for bob; each end is the rest of a delivery agent's line."""
    return [
        f"smtpd[7]: {queue_id}: client=localhost[127.0.0.1]",
        f"cleanup[8]: {queue_id}: message-id={name(number)}",
        *([f"qmgr[9]: {queue_id}: from=<a@example.org>, size=1, nrcpt=1 (queue active)"] * taken),
        *(f"smtp[10]: {queue_id}: to=<bob@example.net>, relay=x, dsn=2.0.0, {e}" for e in ends),
        *([f"qmgr[9]: {queue_id}: removed"] if ends and "deferred" not in ends[-1] else []),
    ]


@pytest.mark.parametrize("log", [SHORT, LONG], ids=["short", "long"])
def test_each_mail_has_its_fate(log: bytes) -> None:
    assert fates(log) == ENDS


@pytest.mark.parametrize("log", [SHORT, LONG], ids=["short", "long"])
def test_the_relays_words_come_along(log: bytes) -> None:
    account = read(log)
    assert fate_of(account, 1, "bob")[1] == "(250 2.0.0 queued)"
    assert "550 5.1.1 no such user" in fate_of(account, 2, "carla")[1]
    assert fate_of(account, 3, "davi")[1].startswith("expired returned to sender; (host")


def test_it_is_counted_what_was_there() -> None:
    account = read(SHORT + b"Nov 22 11:08:56 relay sshd[1]: hello\n\n")
    assert (account.lines, account.postfix_lines, account.ours) == (68, 66, 6)


def test_only_what_is_wanted_is_kept() -> None:
    account = read(SHORT, {name(2)}.__contains__)
    assert (list(account.passages), account.ours) == ([name(2)], 6)


@pytest.mark.parametrize(
    "at",
    [
        "2026-11-22T11:08:56.123456+00:00",
        "2026-11-22T11:08:56Z",
        "2026-11-22 11:08:56.1",
        "Nov  2 01:08:56",
    ],
)
def test_every_form_of_time_is_read(at: str) -> None:
    assert fates(SHORT.replace(b"Nov 22 11:08:56", at.encode())) == ENDS


def test_other_names_of_the_program_are_read() -> None:
    assert fates(SHORT.replace(b" postfix/", b" postfix-out/relay/")) == ENDS


def test_lines_of_other_services_in_between_do_not_matter() -> None:
    noise = [b"Nov 22 11:08:56 relay dovecot: imap: bye\n", b"\xff\xfe\x00broken\n", b"\n"]
    lines = io.BytesIO(SHORT).readlines()
    assert fates(itertools.chain.from_iterable([line, *noise] for line in lines)) == ENDS


def test_a_program_that_quotes_a_line_of_postfix_is_not_believed() -> None:
    quoted = b"Nov 22 11:08:56 relay shop[3]: said: "
    assert read(quoted + SHORT.replace(b"\n", b"\n" + quoted)).postfix_lines == 0


def test_bytes_that_cannot_be_decoded_are_borne() -> None:
    log = SHORT.replace(b"2.0.0 queued", b"2.0.0 qu\xe9\xff\x00ued")
    assert fates(log) == ENDS


def test_the_recipient_must_be_the_readers() -> None:
    account = read(SHORT)
    assert fate_of(account, 1, "carla")[0] is Fate.DEFERRED  # taken; nothing is said of her


def test_a_recipient_that_was_rewritten_is_known_by_the_one_that_was_asked_for() -> None:
    ends = syslog(*passage("6F8C8A10164", "status=sent (250 ok)"))
    log = ends.replace(b"to=<bob@example.net>", b"to=<b@box.example>, orig_to=<bob@example.net>")
    assert fate_of(read(log), 1, "bob")[0] is Fate.SENT


def test_of_an_alias_all_must_have_failed() -> None:
    two = syslog(*passage("6F8C8A10164", "status=bounced (no)", "status=deferred (later)"))
    alias = b"to=<%s@box.example>, orig_to=<bob@example.net>"
    log = two.replace(b"to=<bob@example.net>", alias % b"b", 1)
    log = log.replace(b"to=<bob@example.net>", alias % b"c", 1)
    assert fate_of(read(log), 1, "bob")[0] is Fate.DEFERRED


def test_a_log_that_begins_in_the_middle_proves_nothing_of_what_it_does_not_name() -> None:
    lines = io.BytesIO(SHORT).readlines()
    begin = next(n for n, line in enumerate(lines) if name(2).encode() in line)
    assert fates(lines[begin:]) == {**ENDS, "bob": Fate.NOTHING}


def test_a_log_that_ends_in_the_middle_proves_only_what_it_shows() -> None:
    lines = io.BytesIO(SHORT).readlines()
    end = next(n for n, line in enumerate(lines) if b"status=deferred" in line and b"gina" in line)
    found = fates(lines[: end + 1])
    assert (found["gina"], found["davi"], found["carla"]) == (
        Fate.DEFERRED,
        Fate.DEFERRED,
        Fate.FAILED,
    )


def test_no_cut_of_the_log_makes_a_wrong_claim() -> None:
    lines = io.BytesIO(SHORT).readlines()
    for begin, end in itertools.combinations(range(0, len(lines) + 1, 3), 2):
        for who, fate in fates(lines[begin:end]).items():
            assert fate in (ENDS[who], Fate.DEFERRED, Fate.NOTHING)


@pytest.mark.parametrize("removed", [True, False])
def test_a_queue_id_that_is_used_again_is_another_message(removed: bool) -> None:
    first = passage("6F8C8A10164", "status=deferred (later)")
    first += ["qmgr[9]: 6F8C8A10164: removed"] * removed
    other = passage("6F8C8A10164", "status=sent (250 ok)", number=2)
    account = read(syslog(*first, *other))
    assert fate_of(account, 1, "bob")[0] is Fate.DEFERRED
    assert fate_of(account, 2, "bob")[0] is Fate.SENT


def test_a_queue_id_used_again_by_a_mail_that_is_not_ours_does_not_speak_for_ours() -> None:
    ours = passage("6F8C8A10164")
    theirs = [
        line.replace(name(1), "<x@y>") for line in passage("6F8C8A10164", "status=sent (250)")
    ]
    assert fate_of(read(syslog(*ours, *theirs)), 1, "bob")[0] is Fate.DEFERRED


def test_a_mail_that_came_through_twice_is_sent_where_one_was() -> None:
    log = syslog(*passage("AAAAAA", "status=bounced (no)"), *passage("BBBBBB", "status=sent (250)"))
    assert fate_of(read(log), 1, "bob")[0] is Fate.SENT


@pytest.mark.parametrize("other", [(), ("status=deferred (later)",)])
def test_it_has_not_failed_while_another_passage_is_open(other: tuple[str, ...]) -> None:
    log = syslog(*passage("AAAAAA", *other), *passage("BBBBBB", "status=bounced (no)"))
    assert fate_of(read(log), 1, "bob")[0] is Fate.DEFERRED


def test_an_earlier_passage_that_was_cut_off_before_its_end_does_not_keep_it_open() -> None:
    cut = passage("AAAAAA", taken=False)
    log = syslog(*cut, *passage("BBBBBB", "status=bounced (no)"))
    assert fate_of(read(log), 1, "bob")[0] is Fate.FAILED
    newest = syslog(*passage("BBBBBB", "status=bounced (no)"), *cut)
    assert fate_of(read(newest), 1, "bob")[0] is Fate.DEFERRED


@pytest.mark.parametrize("agent", ["lmtp", "local", "virtual", "pipe", "error", "relay", "discard"])
def test_every_delivery_agent_is_heard(agent: str) -> None:
    lines = [
        line.replace("smtp[10]", f"{agent}[10]") for line in passage("AAAAAA", "status=sent (ok)")
    ]
    assert fate_of(read(syslog(*lines)), 1, "bob")[0] is Fate.SENT


@pytest.mark.parametrize(
    "status", ["deliverable", "undeliverable", "expired-perhaps", "sentinel", ""]
)
def test_a_status_that_is_no_end_settles_nothing(status: str) -> None:
    log = syslog(*passage("AAAAAA", f"status={status} (x)"))
    assert fate_of(read(log), 1, "bob")[0] is Fate.DEFERRED


def test_a_reply_that_looks_like_a_status_is_only_a_reply() -> None:
    said = "status=deferred (host said: 451 x, status=sent (250 ok))"
    assert fate_of(read(syslog(*passage("AAAAAA", said))), 1, "bob")[0] is Fate.DEFERRED


def test_a_gzip_file_is_read_like_a_plain_one(tmp_path: Path) -> None:
    packed = gzip.compress(SHORT[:2000]) + gzip.compress(SHORT[2000:])
    assert b"".join(postfix_log.lines(io.BytesIO(packed))) == SHORT
    assert b"".join(postfix_log.lines(io.BytesIO(SHORT))) == SHORT


@pytest.mark.parametrize("cut", [-9, 40, 3])
def test_a_damaged_gzip_file_is_said_to_be_damaged(cut: int) -> None:
    with pytest.raises(Damaged):
        list(postfix_log.lines(io.BytesIO(gzip.compress(SHORT)[:cut])))


def test_a_gigantic_line_is_cut_and_never_held_whole() -> None:
    pieces = list(postfix_log.lines(io.BytesIO(b"x" * 1_000_000 + b"\n" + SHORT)))
    assert max(map(len, pieces)) <= postfix_log.LONGEST_LINE
    assert fates(pieces) == ENDS
