"""Mail to one person: the test of an issue before it is approved."""

from __future__ import annotations

import secrets

from django.conf import settings

from newsletter import rendering
from newsletter.models import Issue, Refused, database_now
from newsletter.tokens import TEST_TOKEN

from . import publishing
from .channel import transport
from .message import Mailbox, Recipient, compile_message, stamp
from .transports import Envelope
from .transports.outcomes import Outcome


def send_test(issue: Issue, address: str) -> Outcome:
    """Mail the issue as it stands now, with [Test] before its subject, to one address. Crosses the network."""
    document = issue.document()
    problems = rendering.problems(document)
    if problems:
        raise Refused(f"{issue.label} cannot be mailed: " + " ".join(problems))
    podcast = getattr(issue, "podcast", None)
    slots = rendering.Slots(podcast.slot if podcast else None, publishing.page_url(issue))
    rendered = rendering.render_email(document, slots)
    sender = Mailbox(document.sender_name, issue.newsletter.from_email)
    compiled = compile_message(
        rendering.Rendered(f"[Test] {rendered.subject}", rendered.html, rendered.text),
        sender=sender,
        list_id=issue.newsletter.list_id,
        date=database_now(),
        nonce=secrets.token_hex(12),
    )
    url = f"{settings.PUBLIC_URL}/u/{TEST_TOKEN}/"
    data = stamp(compiled, Recipient(0, address, "", url))
    connection = transport().connect()
    try:
        return connection.send(Envelope(sender.address, address, data))
    finally:
        connection.close()
