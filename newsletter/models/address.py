"""Addresses: how they are checked, written, and known again after they were erased."""

from __future__ import annotations

import hashlib
import hmac
from functools import cache

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from email_validator import EmailNotValidError, validate_email


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
    try:
        checked = validate_email(
            address.strip(), check_deliverability=False, allow_smtputf8=True, test_environment=True
        )
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None
    return f"{checked.local_part}@{checked.ascii_domain}"


def address_key(address: str) -> str:
    """A keyed hash (HMAC-SHA-256, hex) of a normalised address, the same for each way of writing its case."""
    return hmac.new(_key(), address.casefold().encode(), hashlib.sha256).hexdigest()
