from __future__ import annotations

import pytest

from delivery.transports.smtp import parse_smtp_url


def test_it_reads_an_smtp_url() -> None:
    url = parse_smtp_url("smtp+starttls://us%40er:p%2Fa%3Ass@mail.example.org")
    assert (url.host, url.port, url.security) == ("mail.example.org", 587, "starttls")
    assert (url.username, url.password) == ("us@er", "p/a:ss")
    assert "p/a" not in repr(url)


@pytest.mark.parametrize(
    ("url", "port"),
    [("smtp://localhost", 25), ("smtp://[::1]:2525", 2525), ("smtps://mail.example.org", 465),
     ("smtp://mail.example.org?insecure=1", 25)],
)  # fmt: skip
def test_it_knows_the_default_ports(url: str, port: int) -> None:
    assert parse_smtp_url(url).port == port


@pytest.mark.parametrize(
    "url",
    ["", "mail.example.org", "http://user:s3cret@mail.example.org", "smtps://user:s3cret@",
     "smtp://user:s3cret@mail.example.org", "smtps://user:s3cret@mail.example.org?verify=no",
     "smtps://user:s3cret@mail.example.org?insecure=1", "smtps://user:s3cret@mail.example.org:x",
     "smtps://user:1/s3cret@mail.example.org", "smtps://user:[s3cret@mail.example.org",
     "smtps://user:x#s3cret@mail.example.org", "smtps://:s3cret@mail.example.org",
     "smtps://user:s3cret%0D@mail.example.org", "smtps://user@mail.example.org",
     "smtp://localhost?insecure=0", "smtps://user:s3cret@mail.example.org/path"],
)  # fmt: skip
def test_it_refuses_a_bad_url_without_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="SMTP URL") as caught:
        parse_smtp_url(url)
    assert "s3cret" not in str(caught.value)
