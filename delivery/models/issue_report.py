"""An issue's report as it was counted last: nobody waits for a page that reads a million rows."""

from __future__ import annotations

from django.db import models

from newsletter.models import Issue


class IssueReport(models.Model):
    issue = models.OneToOneField(Issue, models.CASCADE, primary_key=True)
    figures = models.JSONField()  # a `reports.Report`
    counted_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"report of issue {self.issue_id}, counted {self.counted_at:%Y-%m-%d %H:%M}Z"
