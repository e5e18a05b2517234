"""How it leaves the building."""

from __future__ import annotations

from django.apps import AppConfig


class DeliveryConfig(AppConfig):
    name = "delivery"

    def ready(self) -> None:
        from . import checks, jobs, receivers  # noqa: F401  (they register themselves)
