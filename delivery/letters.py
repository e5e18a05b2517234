"""What a transactional mail says: its row, made into bytes."""

from __future__ import annotations

from django.conf import settings

from newsletter import rendering
from newsletter.models import Issue, Newsletter, Subscription
from newsletter.rendering import Rendered
from newsletter.rendering.confirmation import Confirmation, render_confirmation
from newsletter.tokens import TEST_TOKEN

from . import publishing
from .message import Mailbox, Recipient, compile_message, envelope_address, stamp
from .models import TransactionalMail
from .transports import Envelope


def envelope(mail: TransactionalMail) -> Envelope:
    """The same bytes in each attempt, as long as what the mail is about stays the same.

    Raises ValueError, without the address, where it cannot be made.
    """
    about = _about(mail)
    rendered, no_url = _question(about) if isinstance(about, Subscription) else _test(about)
    newsletter = about.newsletter
    sender = Mailbox(newsletter.sender_name, newsletter.envelope()["from_email"])
    compiled = compile_message(
        rendered,
        sender=sender,
        list_id=newsletter.list_id,
        date=mail.created_at,
        nonce=mail.nonce,
    )
    recipient = Recipient(mail.pk, mail.address, "", no_url)
    return Envelope(sender.address, envelope_address(recipient), stamp(compiled, recipient))


def newsletter_of(mail: TransactionalMail) -> Newsletter:
    """Whose sender it goes out under."""
    return _about(mail).newsletter


def _about(mail: TransactionalMail) -> Subscription | Issue:
    about = mail.subscription or mail.issue
    assert about is not None, "a constraint of the table"
    return about


def _question(subscription: Subscription) -> tuple[Rendered, str]:
    """What is asked, and where the person can also say no for good."""
    newsletter, token = subscription.newsletter, subscription.token
    confirmation = Confirmation(
        newsletter_name=newsletter.name,
        language=newsletter.language,
        sender_name=newsletter.sender_name,
        postal_address=newsletter.postal_address,
        url=f"{settings.PUBLIC_URL}/c/{token}/",
    )
    return render_confirmation(confirmation), f"{settings.PUBLIC_URL}/u/{token}/"


def _test(issue: Issue) -> tuple[Rendered, str]:
    podcast = getattr(issue, "podcast", None)
    slots = rendering.Slots(podcast.slot if podcast else None, publishing.page_url(issue))
    found = rendering.render_email(issue.document(), slots)
    rendered = Rendered(f"[Test] {found.subject}", found.html, found.text)
    return rendered, f"{settings.PUBLIC_URL}/u/{TEST_TOKEN}/"
