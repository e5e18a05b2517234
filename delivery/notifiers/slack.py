"""Slack's incoming webhooks: a heading, the lines, and a link.

Sources, all below docs.slack.dev: messaging/sending-messages-using-incoming-webhooks,
messaging/formatting-message-text (escape &, < and > and nothing else), reference/block-kit/blocks.
"""

from __future__ import annotations

from urllib.parse import quote

from delivery.http import Fetch, expect_success
from delivery.notifiers import Notice, plain, shortened

HEADING = 150
SECTION = 3000
SECTIONS = 10
SIGNS = {"info": "✅", "warning": "⚠️", "error": "🔴"}


def notify(webhook_url: str, notice: Notice, *, fetch: Fetch) -> None:
    """Post the notice once. Raises `EdgeError`; its message holds no part of the secret URL."""
    page = fetch(webhook_url, method="POST", json=payload(notice))
    expect_success(page, "Slack's webhook")


def payload(notice: Notice) -> dict[str, object]:
    """The request's JSON; nobody is mentioned, whatever the text says."""
    title = f"{SIGNS[notice.level]} {plain(notice.title)}"
    blocks: list[dict[str, object]] = [
        {"type": "header", "text": {"type": "plain_text", "text": shortened(title, HEADING)}}
    ]
    blocks += map(_section, _packed(notice.lines)[:SECTIONS])
    if notice.url:
        link = _escape(quote(notice.url, safe=_URL_SAFE))
        blocks.append(_section(f"<{link}|Open in Carteiro>"))
    return {"text": _escaped(title, SECTION), "blocks": blocks}


_URL_SAFE = ":/?#[]@!$&'()*+,;=%~"  # all of RFC 3986; a bar or bracket would end Slack's link


def _section(text: str) -> dict[str, object]:
    # verbatim: Slack looks for no names and mentions of its own accord
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def _packed(lines: tuple[str, ...]) -> list[str]:
    """The escaped lines, as many to a section as it can hold."""
    sections: list[str] = []
    for line in (_escaped(plain(line), SECTION) for line in lines):
        if sections and len(sections[-1]) + 1 + len(line) <= SECTION:
            sections[-1] += "\n" + line
        elif line:
            sections.append(line)
    return sections


def _escaped(text: str, limit: int) -> str:
    """Escaped for mrkdwn and at most ``limit`` characters, with no escape cut in two."""
    room = min(limit, len(text))
    while len(escaped := _escape(shortened(text, room))) > limit:
        room -= -(-(len(escaped) - limit) // len("&amp;"))
    return escaped


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
