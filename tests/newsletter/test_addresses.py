"""Addresses: what is one, how it is written, and how it is known again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pytest_django import Settings

from newsletter.models import AddressKey, address_key, normalise_address
from newsletter.models.address import AddressKeyChanged, _checked, _key, _plain

# Near the border of what is plain: all of ASCII, what folds into it, and names that mean something.
LETTERS = st.text(
    st.sampled_from("abXZ09-_.+!'@ \"\\()<>[],;:\t\n\0\x7f\u017f\u212a\u0301\xe9\uff0e"),
    max_size=12,
)
ATOMS = st.sampled_from(
    ["bob", "Bob.S", "a", "INFO", "Postmaster", "o'neil", "x" * 64, "x" * 240, "b+w"]
)
LABELS = st.sampled_from(
    ["example", "Example", "org", "COM", "test", "local", "onion", "invalid", "arpa", "localhost", "a",
     "xn--bcher-kva", "XN--bcher-kva", "ab--cd", "-a", "a-", "a" * 63, "a" * 64, "1", "7z", "", "b\xfccher", "mylocal"]
)  # fmt: skip
DOMAINS = st.lists(LABELS, max_size=5).map(".".join)
NEARLY = st.builds("{}@{}".format, st.one_of(ATOMS, LETTERS), st.one_of(DOMAINS, LETTERS))


@pytest.mark.parametrize(
    ("written", "mailed"),
    [
        ("bob@example.org", "bob@example.org"),
        ("  bob@example.org\t", "bob@example.org"),
        ("Bob@EXAMPLE.Org", "Bob@example.org"),
        ("bob+weekly@example.org", "bob+weekly@example.org"),
        ("o'neil@example.org", "o'neil@example.org"),
        ("eva@bücher.example", "eva@xn--bcher-kva.example"),
        ("josé@example.org", "josé@example.org"),
        ("jose\u0301@example.org", "josé@example.org"),
    ],
)
def test_an_address_is_written_as_it_is_mailed(written: str, mailed: str) -> None:
    assert normalise_address(written) == mailed


@pytest.mark.parametrize(
    "written",
    [
        "",
        "bob",
        "bob@",
        "@example.org",
        "bob@example",
        "bob@@example.org",
        "bob@example..org",
        ".bob@example.org",
        "bob carla@example.org",
        "bob@[127.0.0.1]",
        "Bob <bob@example.org>",
        "bob@example.org, carla@example.org",
        "bob@example.org\nBcc: carla@example.org",
        "bob@exam\x00ple.org",
        "b" * 250 + "@example.org",
        "bob@" + "a." * 130 + "org",
        '"bob"@example.org',
    ],
)
def test_what_is_no_address_is_told_in_words(written: str) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        normalise_address(written)


@settings(max_examples=1500, deadline=None)
@given(st.one_of(NEARLY, st.builds("{}{}".format, NEARLY, LETTERS), LETTERS, st.emails()))
@example("k" * 245 + "@a.org")  # one more than the longest that there is
@example("bob@example.org\n")
@example("bob@\u212aelvin.org")
def test_the_short_way_says_what_the_long_way_says(written: str) -> None:
    short = _plain(written)
    assert short is None or short == _checked(written)


@pytest.mark.parametrize("written", ["bob@example.org", "B.o+b@Mail.Example.ORG", "Info@a-b.pt"])
def test_the_usual_address_goes_the_short_way(written: str) -> None:
    assert _plain(written) == _checked(written)


def test_a_normalised_address_stays_as_it_is() -> None:
    once = normalise_address("Eva@BÜCHER.example")
    assert normalise_address(once) == once


def test_the_key_is_the_same_for_each_way_of_writing_the_case() -> None:
    assert address_key("Bob@example.org") == address_key("bob@example.org")
    assert address_key("bob@example.org") != address_key("carla@example.org")


def test_the_key_does_not_tell_the_address() -> None:
    assert len(address_key("bob@example.org")) == 64
    assert "bob" not in address_key("bob@example.org")


@pytest.fixture
def forgetful() -> Iterator[None]:
    """The key is read anew within the test, and after it."""
    _key.cache_clear()
    yield
    _key.cache_clear()


@pytest.mark.django_db
def test_a_changed_key_is_noticed(forgetful: None, settings: Settings) -> None:
    AddressKey.check_unchanged()
    settings.ADDRESS_KEY = "another key"
    _key.cache_clear()
    with pytest.raises(AddressKeyChanged, match="ADDRESS_KEY"):
        AddressKey.check_unchanged()


@pytest.mark.django_db
def test_a_rotated_secret_key_may_live_on_as_the_address_key(
    forgetful: None, settings: Settings
) -> None:
    AddressKey.check_unchanged()
    before = address_key("bob@example.org")
    settings.ADDRESS_KEY, settings.SECRET_KEY = settings.SECRET_KEY, "rotated" * 8
    _key.cache_clear()
    AddressKey.check_unchanged()
    assert address_key("bob@example.org") == before
