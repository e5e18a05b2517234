from __future__ import annotations

import pytest

from delivery.transports.api_url import ApiUrl, parse_api_url, parse_email_url
from delivery.transports.smtp import SmtpUrl, parse_smtp_url


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


def test_it_reads_a_providers_url() -> None:
    url = parse_api_url("anymail+postmark://to%2Fk%40n@?stream=broadcast")
    assert (url.provider, url.user, url.stream) == ("postmark", "to/k@n", "broadcast")
    url = parse_api_url("anymail+ses://AKID:se%2Fcr%2Bet@eu-west-1?configuration_set=events")
    assert (url.user, url.secret, url.region) == ("AKID", "se/cr+et", "eu-west-1")
    assert url.configuration_set == "events"
    assert "cr" not in repr(url) and "AKID" not in repr(url)


def test_it_knows_which_provider_honours_a_key() -> None:
    kept = {name: parse_api_url(f"anymail+{name}://k@").replays for name in ("postmark", "resend")}
    assert kept == {"postmark": 0, "resend": 24 * 3600}


def test_it_tells_a_provider_from_a_server() -> None:
    assert isinstance(parse_email_url("anymail+resend://re_key@"), ApiUrl)
    assert isinstance(parse_email_url("smtp://localhost"), SmtpUrl)


@pytest.mark.parametrize(
    "api", ["http://127.0.0.1:8025", "http://localhost:1", "https://api.example.org/v1"]
)
def test_it_reads_another_address_of_the_api(api: str) -> None:
    assert parse_api_url(f"anymail+resend://re_key@?api={api}").api == api


@pytest.mark.parametrize(
    "url",
    ["anymail+resend://", "anymail+resend://@", "anymail+resend://s3cret", "anymail+other://s3cret@",
     "anymail+resend://s3cret@api.resend.com", "anymail+resend://s3cret:more@",
     "anymail+resend://s3cret@/path", "anymail+resend://x/s3cret@", "anymail+resend://x#s3cret@",
     "anymail+resend://[s3cret@", "anymail+resend://s3cret%0D@", "anymail+resend://s3 cret@",
     "anymail+resend://s3cret@?stream=x", "anymail+postmark://s3cret@?stream=a%20b",
     "anymail+postmark://s3cret@?stream=", "anymail+ses://AKID:s3cret@", "anymail+ses://s3cret@eu-west-1",
     "anymail+ses://AKID:s3cret@eu-west-1:443", "anymail+ses://AKID:s3cret@eu_west.1",
     "anymail+ses://AKID:x/s3cret@eu-west-1", "anymail+resend://s3cret@?api=http://api.example.org",
     "anymail+resend://s3cret@?api=ftp://127.0.0.1", "anymail+resend://s3cret@?api=https://u:p@host",
     "anymail+resend://s3cret@?api=nonsense", "anymail+resend://s3cret@?api=http://[127.0.0.1"],
)  # fmt: skip
def test_it_refuses_a_bad_providers_url_without_its_secret(url: str) -> None:
    with pytest.raises(ValueError, match="provider URL") as caught:
        parse_email_url(url)
    assert "s3cret" not in str(caught.value)
