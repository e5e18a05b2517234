"""What every page of the admin says while everything is held."""

from __future__ import annotations

from django import template

from delivery.models import House

register = template.Library()


@register.simple_tag
def house() -> House:
    """The house as it stands now."""
    return House.read()
