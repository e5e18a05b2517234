"""Addresses: how they are checked, written, and known again after they were erased."""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import cache

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from email_validator.rfc_constants import CASE_INSENSITIVE_MAILBOX_NAMES

# Most addresses: a plain local part (RFC 5322, dot-atom), and a host name (RFC 1123) in ASCII under a name of letters.
# email-validator takes 30 us for one, this a twentieth; a property test holds them to the same answer.
_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]+"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
PLAIN = re.compile(
    rf"({_ATOM}(?:\.{_ATOM})*)@((?:{_LABEL}\.)+{_LABEL}(?<=[a-z]))", re.ASCII | re.IGNORECASE
)
LONGEST = 254
SPECIAL_USE = tuple(SPECIAL_USE_DOMAIN_NAMES)
ONE_CASE = frozenset(CASE_INSENSITIVE_MAILBOX_NAMES)  # RFC 2142: info, postmaster ...


class AddressKeyChanged(ImproperlyConfigured):
    """The key of the address hashes is not the one that this database was begun with: suppressed readers would
    not be known again. Set ADDRESS_KEY to the earlier value (where it was never set: to the earlier SECRET_KEY)."""

    def __init__(self) -> None:
        super().__init__(" ".join((type(self).__doc__ or "").split()))


class AddressKey(models.Model):
    """The fingerprint of the one key that this database's address hashes are made with."""

    fingerprint = models.CharField(max_length=64)

    def __str__(self) -> str:
        return self.fingerprint[:8]

    @classmethod
    def check_unchanged(cls) -> None:
        """Raise AddressKeyChanged, or remember the key where this is the first time."""
        fingerprint = hashlib.sha256(b"fingerprint" + _key()).hexdigest()
        row, _ = cls.objects.get_or_create(pk=1, defaults={"fingerprint": fingerprint})
        if row.fingerprint != fingerprint:
            raise AddressKeyChanged


@cache
def _key() -> bytes:
    secret = settings.ADDRESS_KEY or settings.SECRET_KEY
    return hashlib.sha256(b"carteiro.address-key" + secret.encode()).digest()


def normalise_address(address: str) -> str:
    """The address as it is mailed: domain in lower case and as A-labels. ValueError says what is wrong with it."""
    address = address.strip()
    return _plain(address) or _checked(address)


def address_key(address: str) -> str:
    """A keyed hash (HMAC-SHA-256, hex) of a normalised address, the same for each way of writing its case."""
    return hmac.digest(_key(), address.casefold().encode(), "sha256").hex()


def _plain(address: str) -> str | None:
    """The normalised address, where it is of the plain kind; None where only the library can tell."""
    found = PLAIN.fullmatch(address)
    if found is None or len(address) > LONGEST:
        return None
    local, domain = found[1], found[2].lower()
    if "--" in domain or domain.endswith(SPECIAL_USE):
        return None
    return f"{local.lower() if local.lower() in ONE_CASE else local}@{domain}"


def _checked(address: str) -> str:
    try:
        checked = validate_email(
            address, check_deliverability=False, allow_smtputf8=True, test_environment=True
        )
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None
    return f"{checked.local_part}@{checked.ascii_domain}"
