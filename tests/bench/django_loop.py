"""What most projects do: `python -m tests.bench.django_loop copy.eml PORT MESSAGES`; prints the seconds of the loop.

An EmailMultiAlternatives for each recipient, with the same text, HTML and List-Unsubscribe as ours, sent over one
connection that is kept. Nothing is written down.
"""

from __future__ import annotations

import email
import email.policy
import sys
import time
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection


def main(file: str, port: int, messages: int) -> None:
    settings.configure(EMAIL_HOST="127.0.0.1", EMAIL_PORT=port)
    copy = email.message_from_bytes(Path(file).read_bytes(), policy=email.policy.default)
    assert isinstance(copy, EmailMessage)
    made = maker(copy)
    connection = get_connection("django.core.mail.backends.smtp.EmailBackend")
    connection.open()
    began = time.perf_counter()
    for number in range(messages):
        sent = connection.send_messages([made(number)])
        assert sent == 1, "the server did not take it"
    print(time.perf_counter() - began)
    connection.close()


def maker(copy: EmailMessage) -> Callable[[int], EmailMultiAlternatives]:
    """Text, HTML and headers are at hand before the loop: to read them again for each message is nobody's loop."""
    subject, sender = str(copy["Subject"]), str(copy["From"])
    plain, html = body(copy, "plain"), body(copy, "html")
    names = ("List-Id", "List-Unsubscribe", "List-Unsubscribe-Post")
    headers = {name: str(copy[name]) for name in names}

    def made(number: int) -> EmailMultiAlternatives:
        to = f"Person {number} <person{number}@example.org>"
        message = EmailMultiAlternatives(subject, plain, sender, [to], headers=headers)
        message.attach_alternative(html, "text/html")
        return message

    return made


def body(copy: EmailMessage, kind: str) -> str:
    part = copy.get_body((kind,))
    assert part is not None, f"the copy has no {kind} part"
    return str(part.get_content())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
