"""Discord's incoming webhooks: one embed a notice.

Limits: discord.com/developers/docs/resources/message#embed-object-embed-limits.
"""

from __future__ import annotations

from delivery.http import Fetch, expect_success
from delivery.notifiers import Notice, plain, shortened

TITLE = 256
DESCRIPTION = 4096
FOOTER = 2048
COLOURS = {"info": 0x2E7D32, "warning": 0xF9A825, "error": 0xC62828}


def notify(webhook_url: str, notice: Notice, *, fetch: Fetch) -> None:
    """Post the notice once. Raises `EdgeError`; its message holds no part of the secret URL."""
    page = fetch(webhook_url, method="POST", json=payload(notice))
    expect_success(page, "Discord's webhook")


def payload(notice: Notice) -> dict[str, object]:
    """The request's JSON; nobody is mentioned, whatever the text says."""
    embed: dict[str, object] = {
        "title": shortened(plain(notice.title), TITLE),
        "color": COLOURS[notice.level],
        "footer": {"text": shortened(plain(notice.event), FOOTER)},
    }
    if notice.lines:
        embed["description"] = shortened("\n".join(map(plain, notice.lines)), DESCRIPTION)
    if notice.url:
        embed["url"] = notice.url
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}
