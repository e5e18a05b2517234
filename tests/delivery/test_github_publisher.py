"""The GitHub publisher against a server that behaves, and one that misbehaves."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from delivery.errors import EdgeError
from delivery.publishers import EditedByPerson, Post, blob_sha
from delivery.publishers.github import GitHubPublisher
from tests.stand_ins import github as acts
from tests.stand_ins.github import TOKEN, Act, Commit, GitHubStandIn

POST = Post("content/posts/issue-1.md", b"Hello\n", "Publish issue 1")
OLD = b"Hallo\n"
SHA = blob_sha(POST.data)
CREATED = [Commit(POST.path, POST.message, SHA)]

HEALING = [
    acts.WELL,
    acts.CONFLICT,
    acts.RACED,
    acts.SHA_MISSING,
    acts.RATE_LIMITED,
    acts.EXHAUSTED,
    acts.TOO_MANY,
    acts.BROKEN,
    acts.UNAVAILABLE,
    acts.NOT_YET,
    acts.DROP,
    acts.HANG,
    acts.DROP_AFTER_COMMIT,
    acts.HANG_AFTER_COMMIT,
    acts.BAD_GATEWAY_AFTER_COMMIT,
    acts.GARBAGE_AFTER_COMMIT,
]
# Each with what its message has to say.
FINAL = [
    (acts.UNAUTHORIZED, "expired"),
    (acts.FORBIDDEN, "contents:write"),
    (acts.NO_REPOSITORY, "does not exist"),
    (acts.NO_BRANCH, "does not exist"),
    (acts.REFUSED, "rule violations"),
    (acts.PROTECTED, "pull request"),
    (acts.MOVED, "renamed or moved"),
    (acts.MOVED_WRITE, "renamed or moved"),
]


@pytest.fixture
def gh(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHubStandIn]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with GitHubStandIn() as stand_in:
        yield stand_in


def publisher(gh: GitHubStandIn, **changes: str) -> GitHubPublisher:
    given = {"repository": gh.repository, "branch": gh.branch, "token": TOKEN, "base_url": gh.url}
    given |= changes
    return GitHubPublisher(
        given["repository"],
        given["branch"],
        given["token"],
        base_url=given["base_url"],
        timeout=1,
    )


def publish_as_a_job(gh: GitHubStandIn, *, ours: str = "") -> int:
    """Up to four tries, as the job's retries would; how many were needed."""
    for attempt in range(1, 5):
        try:
            publisher(gh).publish(POST, ours=ours)
            return attempt
        except EdgeError as error:
            assert not error.permanent, error.message
    raise AssertionError("not published after four tries")


@pytest.mark.parametrize("act", HEALING, ids=str)
def test_a_new_post_ends_as_exactly_one_commit(gh: GitHubStandIn, act: Act) -> None:
    gh.script(act)
    publish_as_a_job(gh)
    assert gh.commits == CREATED


@pytest.mark.parametrize("act", HEALING, ids=str)
def test_an_update_ends_as_exactly_one_commit(gh: GitHubStandIn, act: Act) -> None:
    gh.edit(POST.path, OLD)
    gh.script(act)
    publish_as_a_job(gh, ours=blob_sha(OLD))
    assert gh.commits == CREATED


@pytest.mark.parametrize("act", [act for act in HEALING if act is not acts.SHA_MISSING], ids=str)
def test_a_look_that_fails_ends_as_exactly_one_commit(gh: GitHubStandIn, act: Act) -> None:
    gh.script(act, verb="GET")
    publish_as_a_job(gh)
    assert gh.commits == CREATED


def test_three_misfortunes_in_a_row_end_as_exactly_one_commit(gh: GitHubStandIn) -> None:
    gh.script(acts.BROKEN, acts.RATE_LIMITED, acts.BAD_GATEWAY_AFTER_COMMIT)
    assert publish_as_a_job(gh) == 4
    assert gh.commits == CREATED


@pytest.mark.parametrize(("act", "says"), FINAL, ids=str)
def test_a_refusal_is_final_and_says_what_to_do(gh: GitHubStandIn, act: Act, says: str) -> None:
    gh.script(*[act] * 3)
    with pytest.raises(EdgeError, match=says) as refused:
        publisher(gh).publish(POST, ours="")
    assert refused.value.permanent
    assert not gh.commits


@pytest.mark.parametrize("act", [*HEALING, *(act for act, _ in FINAL)], ids=str)
def test_no_message_and_no_log_holds_the_token(
    gh: GitHubStandIn, act: Act, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (None, "github", "urllib3"):  # the house keeps the libraries quiet
        caplog.set_level(logging.DEBUG, logger=name)
    if act.then == "hang":
        act = acts.DROP  # the same way out, without its second
    gh.script(*[act] * 3)
    try:
        publisher(gh).publish(POST, ours="")
    except EdgeError as error:
        assert TOKEN not in f"{error} {error!r} {error.__cause__!r}"
    assert TOKEN not in caplog.text
    assert caplog.text


def test_a_token_that_github_repeats_is_blotted_out(gh: GitHubStandIn) -> None:
    gh.script(Act("echo", 401, f"Bad token {TOKEN}\nreally"))
    with pytest.raises(EdgeError, match=r"Bad token \[token\] really"):
        publisher(gh).publish(POST, ours="")


@pytest.mark.parametrize(("token", "says"), [("", "is not set"), (" ", "is not set")])
def test_a_missing_token_is_said_to_be_missing(gh: GitHubStandIn, token: str, says: str) -> None:
    with pytest.raises(EdgeError, match=f"GITHUB_TOKEN {says}") as refused:
        publisher(gh, token=token).publish(POST, ours="")
    assert refused.value.permanent
    assert not gh.requests


@pytest.mark.parametrize("token", ["ghp secret", "ghp\nsecret", "ghp_secrét"])
def test_a_token_that_cannot_be_one_is_refused_unshown(gh: GitHubStandIn, token: str) -> None:
    with pytest.raises(EdgeError, match="copy it again") as refused:
        publisher(gh, token=token).publish(POST, ours="")
    assert "secr" not in str(refused.value)


@pytest.mark.parametrize("repository", ["", "blog", "ana/blog/x", "https://github.com/ana/blog"])
def test_a_repository_that_cannot_be_one_is_refused(gh: GitHubStandIn, repository: str) -> None:
    with pytest.raises(EdgeError, match="owner/name"):
        publisher(gh, repository=repository).publish(POST, ours="")


@pytest.mark.parametrize("base_url", ["", "api.github.com", "ftp://x", "http://x:port"])
def test_a_base_url_that_cannot_be_one_is_refused(gh: GitHubStandIn, base_url: str) -> None:
    with pytest.raises(EdgeError, match="GITHUB_API_URL"):
        publisher(gh, base_url=base_url).publish(POST, ours="")


def test_a_new_post_takes_two_looks_and_one_write(gh: GitHubStandIn) -> None:
    publisher(gh).publish(POST, ours="")
    assert [(seen.verb, seen.path) for seen in gh.requests] == [
        ("GET", "/repos/ana/blog/contents/content/posts/issue-1.md"),
        ("GET", "/repos/ana/blog/branches/main"),
        ("PUT", "/repos/ana/blog/contents/content/posts/issue-1.md"),
    ]


def test_the_client_does_not_retry_a_write_behind_our_back(gh: GitHubStandIn) -> None:
    gh.script(acts.BAD_GATEWAY_AFTER_COMMIT)
    with pytest.raises(EdgeError):
        publisher(gh).publish(POST, ours="")
    assert gh.count("PUT") == 1


def test_the_client_does_not_sleep_between_requests(
    gh: GitHubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    publisher(gh).publish(POST, ours="")
    assert not slept


def test_it_tells_the_page_of_the_file(gh: GitHubStandIn) -> None:
    page = f"https://github.com/ana/blog/blob/main/{POST.path}"
    first, again = (publisher(gh).publish(POST, ours="") for _ in range(2))
    assert (first.url, again.url) == (page, page)


def test_a_branch_of_its_own_is_read_and_written(gh: GitHubStandIn) -> None:
    gh.branch = "site/live"
    publisher(gh).publish(POST, ours="")
    look, branch, write = gh.requests
    assert look.query["ref"] == write.body["branch"] == "site/live"
    assert branch.path.endswith("/branches/site/live")


def test_no_branch_means_the_repositorys_default(gh: GitHubStandIn) -> None:
    publisher(gh, branch="").publish(POST, ours="")
    assert "branch" not in gh.requests[-1].body
    assert gh.commits == CREATED


def test_the_first_post_of_an_empty_repository_is_published(gh: GitHubStandIn) -> None:
    gh.empty = True
    publisher(gh).publish(POST, ours="")
    assert gh.commits == CREATED


@pytest.mark.parametrize("branch", ["", "main"])
def test_a_missing_repository_is_no_missing_file(gh: GitHubStandIn, branch: str) -> None:
    with pytest.raises(EdgeError, match="repository or branch does not exist") as refused:
        publisher(gh, repository="ana/blogg", branch=branch).remove("x.md", ours="", message="m")
    assert refused.value.permanent


def test_a_missing_branch_is_no_missing_file(gh: GitHubStandIn) -> None:
    with pytest.raises(EdgeError, match="the branch lvie does not exist in ana/blog"):
        publisher(gh, branch="lvie").remove("x.md", ours="", message="m")


def test_a_file_too_big_for_the_contents_api_is_known_by_its_sha(gh: GitHubStandIn) -> None:
    big = Post(POST.path, b"x" * 1_500_000, "m")
    assert publisher(gh).publish(big, ours="").changed
    assert not publisher(gh).publish(big, ours="").changed


@pytest.mark.parametrize(
    ("act", "seconds"),
    [
        (acts.RATE_LIMITED, 7),
        (acts.UNAVAILABLE, 11),
        (acts.EXHAUSTED, 90),
        (acts.TOO_MANY, 60),
        (Act("no hint", 403, "You have exceeded a secondary rate limit."), 60),
        (Act("nonsense", 429, "Slow", {"Retry-After": "soon"}), 60),
        (Act("past", 429, "Slow", {"Retry-After": formatdate(0, usegmt=True)}), 1),
        (Act("a date", 429, "Slow", {"Retry-After": formatdate(4e9, usegmt=True)}), 86_400),
    ],
    ids=str,
)
def test_it_passes_on_how_long_github_wants_us_to_wait(
    gh: GitHubStandIn, act: Act, seconds: float
) -> None:
    gh.script(act)
    with pytest.raises(EdgeError) as limited:
        publisher(gh).publish(POST, ours="")
    assert limited.value.retry_after == pytest.approx(seconds, abs=2)
    assert not limited.value.permanent


def test_a_branch_that_never_holds_still_is_tried_again_later(gh: GitHubStandIn) -> None:
    gh.script(*[acts.RACED] * 3)
    with pytest.raises(EdgeError, match="would not hold still") as failed:
        publisher(gh).publish(POST, ours="")
    assert not failed.value.permanent
    assert gh.count("PUT") == 3


def test_an_edit_between_our_look_and_our_write_stops_us(gh: GitHubStandIn) -> None:
    gh.edit(POST.path, OLD)
    look = gh.serve

    def edit_after_the_look(seen: acts.Seen) -> tuple[Act, acts.Reply]:
        answer = look(seen)
        gh.edit(POST.path, b"mine")
        return answer

    gh.serve = edit_after_the_look  # type: ignore[method-assign]
    with pytest.raises(EditedByPerson, match=blob_sha(b"mine")):
        publisher(gh).publish(POST, ours=blob_sha(OLD))
    assert not gh.commits


def test_two_publishers_at_once_make_one_commit(gh: GitHubStandIn) -> None:
    outcomes: list[bool] = []
    both = threading.Barrier(2)

    def publish() -> None:
        both.wait()
        outcomes.append(publisher(gh).publish(POST, ours="").changed)

    threads = [threading.Thread(target=publish) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False, True]
    assert gh.commits == CREATED


@pytest.mark.parametrize("act", [acts.DROP_AFTER_COMMIT, acts.BAD_GATEWAY_AFTER_COMMIT], ids=str)
def test_a_removal_whose_answer_was_lost_is_done(gh: GitHubStandIn, act: Act) -> None:
    gh.edit(POST.path, POST.data)
    gh.script(act, verb="DELETE")
    with pytest.raises(EdgeError):
        publisher(gh).remove(POST.path, ours=SHA, message="Withdraw")
    assert not publisher(gh).remove(POST.path, ours=SHA, message="Withdraw")
    assert gh.commits == [Commit(POST.path, "Withdraw", "")]


def test_a_renamed_repository_is_not_followed_to_another_branch(gh: GitHubStandIn) -> None:
    gh.script(acts.MOVED, verb="GET")
    with pytest.raises(EdgeError, match="renamed or moved") as moved:
        publisher(gh).publish(POST, ours="")
    assert moved.value.permanent
    assert len(gh.requests) == 1


def test_a_netrc_does_not_replace_the_token(
    gh: GitHubStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    publisher(gh).publish(POST, ours="")
    assert {seen.headers["Authorization"] for seen in gh.requests} == {f"token {TOKEN}"}


def test_a_server_that_is_not_there_is_tried_again(gh: GitHubStandIn) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EdgeError, match=r"the connection to 127\.0\.0\.1 failed") as failed:
            publisher(gh, base_url=closed).publish(POST, ours="")
    assert not failed.value.permanent


@pytest.mark.parametrize("raw", [b"[", b"null", b'"x"', b'{"sha": 7}', b"\xff", b"[" * 100_000])
def test_an_answer_that_makes_no_sense_is_asked_for_again(gh: GitHubStandIn, raw: bytes) -> None:
    gh.script(Act("raw", raw=raw), verb="GET")
    with pytest.raises(EdgeError, match="makes no sense") as failed:
        publisher(gh).publish(POST, ours="")
    assert not failed.value.permanent


@pytest.mark.parametrize("raw", [b"[]", b"[1]", b'{"message": 7}', b"7"])
def test_an_error_of_any_shape_is_an_edge_error(gh: GitHubStandIn, raw: bytes) -> None:
    gh.script(Act("raw", 403, raw=raw), verb="GET")
    with pytest.raises(EdgeError, match="contents:read"):
        publisher(gh).publish(POST, ours="")
