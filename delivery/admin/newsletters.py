from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db import models
from django.forms import ModelForm
from django.http import HttpRequest

from newsletter.models import Newsletter


class NewsletterForm(ModelForm):
    def clean(self) -> dict[str, Any]:
        """Django leaves a constraint unchecked where one of its fields is read-only."""
        data: dict[str, Any] = super().clean() or {}
        folder = data.get("folder", self.instance.folder)
        target = {"github": data.get("github_repository"), "folder": folder}
        if not target.get(data.get("publisher", ""), "none is needed"):
            self.add_error("publisher", "The publisher needs its repository or folder.")
        return data


@admin.register(Newsletter)
class NewsletterAdmin(admin.ModelAdmin):
    form = NewsletterForm
    list_display = ["name", "slug", "from_email", "zone", "release_weekday", "release_time"]
    prepopulated_fields = {"slug": ["name"]}
    formfield_overrides = {models.URLField: {"assume_scheme": "https"}}

    def get_readonly_fields(
        self, request: HttpRequest, obj: Newsletter | None = None
    ) -> tuple[str, ...]:
        """The folder is a path on this host: only who rules the host may name it."""
        return () if getattr(request.user, "is_superuser", False) else ("folder",)

    fieldsets = [
        (None, {"fields": ["name", "slug", "language"]}),
        ("Sender", {"fields": ["from_name", "from_email", "postal_address"]}),
        (
            "Week",
            {
                "fields": [
                    "zone",
                    "release_weekday",
                    "release_time",
                    "safety_net_time",
                    "too_late_time",
                ]
            },
        ),
        ("Podcast", {"fields": ["podcast_url"]}),
        (
            "Blog",
            {
                "fields": [
                    "publisher",
                    "github_repository",
                    "github_branch",
                    "folder",
                    "post_path",
                    "blog_url",
                ]
            },
        ),
    ]
