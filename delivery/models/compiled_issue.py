"""An issue's MIME, made once: from it and a delivery alone come the bytes of each copy."""

from __future__ import annotations

from django.db import models

from delivery.message import CompiledMessage
from newsletter.models import Issue


class CompiledIssue(models.Model):
    issue = models.OneToOneField(Issue, models.CASCADE, primary_key=True)
    content = models.JSONField()
    mail_from = models.CharField(max_length=254)
    # The first answers since the start, or the last resume: too many refusals among them pause the issue.
    results = models.PositiveIntegerField(default=0)
    refusals = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"compiled {self.issue_id}"

    @property
    def message(self) -> CompiledMessage:
        return CompiledMessage.from_json(self.content)
