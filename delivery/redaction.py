"""No address, token or secret in what is logged or kept about an error."""

from __future__ import annotations

import re
import traceback

ADDRESS = re.compile(r"[^\s@<>()\[\]\"',;:=]+@[^\s@<>()\[\]\"',;:]+")
SECRET = re.compile(
    r"\b(gh[pousr]_|github_pat_)\w+|(?<=/webhooks/)\S+|(?<=hooks\.slack\.com/)\S+|(?<=/u/)[\w-]{20,}"
    r"|(?<=/c/)[\w-]{20,}"
)
MOST = 4000  # characters kept of an error


def redact_text(text: str) -> str:
    """The text without addresses, tokens and the paths of webhooks: a stack trace quotes what it met."""
    return SECRET.sub("<secret>", ADDRESS.sub("<address>", _storable(text)))


def _storable(text: str) -> str:
    """No database takes a lone surrogate, and PostgreSQL no NUL: an error's text may quote either."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def describe(error: BaseException) -> str:
    """An error for the people who mend it: where it arose, its class and its words, redacted."""
    return redact_text("".join(traceback.format_exception(error)))[-MOST:]


def in_words(error: BaseException) -> str:
    """The same in a line, without the place."""
    return redact_text(f"{type(error).__name__}: {error}")[:300]
