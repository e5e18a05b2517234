from __future__ import annotations

from django.contrib import admin

from newsletter.models import Newsletter


@admin.register(Newsletter)
class NewsletterAdmin(admin.ModelAdmin):
    list_display = ["name", "slug", "from_email", "zone", "release_weekday", "release_time"]
    prepopulated_fields = {"slug": ["name"]}
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
