"""The random tokens of the links in the mails."""

from __future__ import annotations

import secrets

TEST_TOKEN = "test"  # noqa: S105  in the links of test mails: nobody is unsubscribed by it


def new_token() -> str:
    """32 random bytes, URL-safe: 43 characters."""
    return secrets.token_urlsafe(32)
