"""The question whether somebody wants a newsletter -> a mail. Pure, as all of rendering."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from newsletter.phrases import phrases
from newsletter.rendering import templates
from newsletter.rendering.document import Rendered
from newsletter.rendering.placeholders import defuse


@dataclass(frozen=True)
class Confirmation:
    """What the question says; `url` is where its answer is given.

    Not the person's name: whoever typed the address typed the name too, and could have us mail their words to others.
    """

    newsletter_name: str
    language: str
    sender_name: str
    postal_address: str
    url: str


def render_confirmation(confirmation: Confirmation) -> Rendered:
    """Render the question in the newsletter's language."""
    safe = Confirmation(*map(defuse, astuple(confirmation)))
    say = phrases(safe.language).about(safe.newsletter_name)
    values = {
        "confirmation": safe,
        "address_lines": [line.strip() for line in safe.postal_address.splitlines()],
        "say": say,
    }
    html = templates.render("confirmation.html.j2", **values)
    return Rendered(
        subject=say.confirm_subject,
        html=templates.inline(html),
        text=templates.render("confirmation.txt.j2", **values),
    )
