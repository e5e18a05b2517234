"""What stands in a mail's header fields, in ASCII (RFC 5322, RFC 2047) and never in two lines.

Written here and not by Python's email package, which encodes a long List-Unsubscribe (mailbox
providers then ignore it) and in 3.11.7 lets a header be injected through an encoded word
(CVE-2024-6923).
"""

from __future__ import annotations

import base64
import re
import unicodedata

import idna

_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+( [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
# A dot-atom, or anything beyond ASCII (RFC 6531); quoted local parts are refused at sign-up.
_LOCAL = re.compile(r"(?!.*\s)[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\u00a1-\ud7ff\ue000-\U0010ffff-]{1,64}")
_DOMAIN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_LINE = 66
# 45 octets are 60 of base64: with =?utf-8?b??= 72, less than the 75 that RFC 2047 allows.
_CHUNK = 45


class MessageError(ValueError):
    """A message cannot be compiled or stamped; says why without showing an address."""


def require(condition: object, message: str) -> None:
    if not condition:
        raise MessageError(message)


def one_line(text: str) -> str:
    """Make control characters, line ends and lone surrogates spaces, and runs of spaces one."""
    harmless = text if text.isprintable() else "".join(map(_harmless, text))
    return " ".join(harmless.split())


def fold(text: str) -> str:
    """Write unstructured text (a Subject) of one line: plain if it can be, else encoded words."""
    words = text.split(" ")
    if not _is_plain(text) or max(map(len, words)) > _LINE:
        return _encoded_words(text)
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) >= _LINE:
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines).removeprefix(" ")


def display_name(name: str) -> str:
    """Write a mailbox's display name with the space after it; nothing for an empty one."""
    if not name:
        return ""
    if not _is_plain(name) or len(name) > _LINE:
        return f"{_encoded_words(name)}\r\n "
    if _ATOMS.fullmatch(name):
        return f"{name} "
    quoted = name.replace("\\", r"\\").replace('"', r"\"")
    return f'"{quoted}" '


def wire_address(address: str, whose: str) -> str:
    """Return an address with its domain as A-labels; raises MessageError, naming only `whose`."""
    local, _, domain = address.rpartition("@")
    try:
        ascii_domain = domain if domain.isascii() else idna.encode(domain, uts46=True).decode()
    except idna.IDNAError:
        ascii_domain = ""
    if not (_LOCAL.fullmatch(local) and _DOMAIN.fullmatch(ascii_domain)):
        raise MessageError(f"The address of {whose} cannot be written in a mail; correct it.")
    return f"{local}@{ascii_domain}"


def _encoded_words(text: str) -> str:
    """Encode text as RFC 2047 words, folded; none of them cuts a character in two."""
    chunks, current = [], b""
    for char in text:
        octets = char.encode("utf-8")
        if len(current) + len(octets) > _CHUNK:
            chunks.append(current)
            current = b""
        current += octets
    chunks.append(current)
    return "\r\n ".join(f"=?utf-8?b?{base64.b64encode(chunk).decode()}?=" for chunk in chunks)


def _is_plain(text: str) -> bool:
    # "=?" would be read as the start of an encoded word that somebody else wrote.
    return text.isascii() and "=?" not in text


def _harmless(char: str) -> str:
    return " " if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char
