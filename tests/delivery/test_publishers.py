"""What every publisher keeps, asked of both; and what only the folder can get wrong."""

from __future__ import annotations

import datetime
import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from delivery.errors import EdgeError
from delivery.publishers import EditedByPerson, Post, Publisher, blob_sha, check_path
from delivery.publishers.folder import FolderPublisher
from delivery.publishers.github import GitHubPublisher
from tests.stand_ins.github import TOKEN, GitHubStandIn

PATH = "content/posts/edição 1.md"
POST = Post(PATH, b"---\ntitle: One\n---\nHello\n", "Publish issue 1")
LATER = Post(PATH, b"---\ntitle: One\n---\nHello again\n", "Publish issue 1 again")
SHA = blob_sha(POST.data)
MONDAY = datetime.date(2026, 3, 2)


@dataclass
class Place:
    """A publisher, and what a person sees and does at the place that it writes to."""

    publisher: Publisher
    read: Callable[[str], bytes | None]
    edit: Callable[[str, bytes], None]


@pytest.fixture(params=["folder", "github"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    if request.param == "folder":
        yield _folder(tmp_path)
        return
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with GitHubStandIn() as gh:
        publisher = GitHubPublisher(gh.repository, gh.branch, TOKEN, base_url=gh.url)
        yield Place(publisher, gh.files.get, gh.edit)


def _folder(root: Path) -> Place:
    def read(path: str) -> bytes | None:
        return (root / path).read_bytes() if (root / path).exists() else None

    def edit(path: str, data: bytes) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)

    return Place(FolderPublisher(root), read, edit)


def test_it_names_bytes_as_git_does(tmp_path: Path) -> None:
    (tmp_path / "post").write_bytes(POST.data)
    git = subprocess.run(
        ["git", "hash-object", "--no-filters", "post"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert git.stdout.decode().strip() == SHA


def test_it_creates_the_file(place: Place) -> None:
    published = place.publisher.publish(POST, ours="")
    assert (published.sha, published.changed) == (SHA, True)
    assert place.read(PATH) == POST.data


def test_it_calls_the_same_bytes_done(place: Place) -> None:
    place.edit(PATH, POST.data)
    published = place.publisher.publish(POST, ours="")
    assert (published.sha, published.changed) == (SHA, False)


def test_it_overwrites_what_we_wrote(place: Place) -> None:
    place.publisher.publish(POST, ours="")
    assert place.publisher.publish(LATER, ours=SHA).changed
    assert place.read(PATH) == LATER.data


def test_it_writes_again_what_was_taken_away(place: Place) -> None:
    assert place.publisher.publish(LATER, ours=SHA).changed
    assert place.read(PATH) == LATER.data


def test_it_publishes_an_empty_file(place: Place) -> None:
    assert place.publisher.publish(Post(PATH, b"", "Empty"), ours="").changed
    assert place.read(PATH) == b""


def test_it_stops_at_a_persons_edit_and_shows_both_shas(place: Place) -> None:
    place.edit(PATH, b"mine")
    with pytest.raises(EditedByPerson) as stopped:
        place.publisher.publish(LATER, ours=SHA)
    assert all(text in stopped.value.message for text in (PATH, blob_sha(b"mine"), SHA))
    assert stopped.value.permanent
    assert place.read(PATH) == b"mine"


def test_it_stops_at_a_file_where_nothing_of_ours_was(place: Place) -> None:
    place.edit(PATH, b"mine")
    with pytest.raises(EditedByPerson, match="nothing of ours was there"):
        place.publisher.publish(POST, ours="")


def test_it_removes_what_we_wrote(place: Place) -> None:
    place.publisher.publish(POST, ours="")
    assert place.publisher.remove(PATH, ours=SHA, message="Withdraw")
    assert place.read(PATH) is None


def test_it_says_that_a_file_is_already_gone(place: Place) -> None:
    assert not place.publisher.remove(PATH, ours=SHA, message="Withdraw")


def test_it_does_not_remove_a_persons_edit(place: Place) -> None:
    place.edit(PATH, b"mine")
    with pytest.raises(EditedByPerson):
        place.publisher.remove(PATH, ours=SHA, message="Withdraw")
    assert place.read(PATH) == b"mine"


def test_it_refuses_a_directory(place: Place) -> None:
    place.edit("content/posts/one.md", b"x")
    with pytest.raises(EdgeError, match="content/posts is a directory") as refused:
        place.publisher.publish(Post("content/posts", b"x", "m"), ours="")
    assert refused.value.permanent


def test_it_refuses_a_path_out_of_the_blog(place: Place) -> None:
    with pytest.raises(EdgeError, match=r"'\.\.' segment") as refused:
        place.publisher.publish(Post("../post.md", b"x", "m"), ours="")
    assert refused.value.permanent


@pytest.mark.parametrize("path", ["a", "content/posts/edição 1.md", ".github/x", "a" * 255, "..a"])
def test_it_takes_a_plain_path(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("a/../b", "'..'"),
        ("./a", "'.'"),
        ("a//b", "empty segment"),
        ("a/", "empty segment"),
        ("a\\b", "backslash"),
        ("a\nb", "control"),
        ("a\x00b", "control"),
        ("a\ud800b", "control"),
        (".git/hooks/pre-commit", "into .git"),
        ("a/.GIT./config", "into .git"),
        ("a" * 256, "255 bytes"),
    ],
)
def test_it_refuses_a_bad_path_and_says_why(path: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_path(path)


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="does not exist") as refused:
        FolderPublisher(tmp_path / "nowhere").publish(POST, ours="")
    assert refused.value.permanent


@pytest.mark.parametrize("link", ["content", "content/posts", PATH])
def test_it_never_writes_through_a_link_out_of_the_folder(tmp_path: Path, link: str) -> None:
    outside, root = tmp_path / "outside", tmp_path / "blog"
    outside.mkdir()
    (root / link).parent.mkdir(parents=True)
    (root / link).symlink_to(outside if link != PATH else outside / "new.md")
    with pytest.raises(EdgeError, match="leads out of the blog's folder"):
        FolderPublisher(root).publish(POST, ours="")
    assert not list(outside.rglob("*"))


def test_it_never_writes_into_git_through_a_link(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "content").symlink_to(".git")
    with pytest.raises(EdgeError, match="leads out"):
        FolderPublisher(tmp_path).publish(Post("content/config", b"x", "m"), ours="")
    assert not list((tmp_path / ".git").iterdir())


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(EdgeError) as refused:
        FolderPublisher(tmp_path).publish(Post("a/post.md", b"x", "m"), ours="")
    assert refused.value.permanent


def test_it_follows_a_link_that_stays_inside(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "content").symlink_to("real")
    FolderPublisher(tmp_path).publish(Post("content/post.md", b"x", "m"), ours="")
    assert (tmp_path / "real/post.md").read_bytes() == b"x"


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(b"x")
    with pytest.raises(EdgeError, match="Not a directory") as refused:
        FolderPublisher(tmp_path).publish(POST, ours="")
    assert refused.value.permanent


def test_a_pipe_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "post.md")
    with pytest.raises(EdgeError, match="no plain file"):
        FolderPublisher(tmp_path).publish(Post("post.md", b"x", "m"), ours="")


def test_a_site_builder_of_another_user_can_read_the_post(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        FolderPublisher(tmp_path).publish(POST, ours="")
    finally:
        os.umask(before)
    assert (tmp_path / PATH).stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_half_way_leaves_the_old_file_alone(tmp_path: Path) -> None:
    publisher = FolderPublisher(tmp_path)
    publisher.publish(POST, ours="")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(EdgeError):
            publisher.publish(Post(PATH, b"x" * 5000, "m"), ours=SHA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()] == [POST.data]


@pytest.mark.parametrize(
    ("code", "permanent"),
    [
        (errno.ENOSPC, False),
        (errno.EIO, False),
        (errno.EACCES, True),
        (errno.EROFS, True),
    ],
)
def test_it_knows_what_may_heal_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, permanent: bool
) -> None:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)  # no real disk fills up on every machine
    with pytest.raises(EdgeError, match=os.strerror(code)) as failed:
        FolderPublisher(tmp_path).publish(Post("post.md", b"x", "m"), ours="")
    assert failed.value.permanent is permanent
