from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from newsletter.models import Newsletter


@admin.register(Newsletter)
class NewsletterAdmin(admin.ModelAdmin):
    list_display = ["name", "slug", "from_email", "zone", "release_weekday", "release_time"]
    prepopulated_fields = {"slug": ["name"]}

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
