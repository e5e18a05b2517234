"""Every address of the site."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from delivery.views import health, operations, readers, report, sandbox, unknowns, webhooks

admin.site.site_header = "Carteiro"
admin.site.site_title = "Carteiro"
admin.site.index_title = "The house"

urlpatterns = [
    path("admin/operations/", include(operations.urlpatterns)),
    path("admin/readers/", include(readers.urlpatterns)),
    path("admin/report/", include(report.urlpatterns)),
    path("admin/unknown/", include(unknowns.urlpatterns)),
    path("admin/", admin.site.urls),
    path("health", health.alive, name="health"),
    path("ready", health.ready, name="ready"),
    path("metrics", health.numbers, name="metrics"),
    path("webhooks/<slug:provider>/", webhooks.receive, name="webhook"),
    path("sandbox/", sandbox.mailbox, name="sandbox"),
    path("sandbox/<str:key>/", sandbox.message, name="sandbox_message"),
    path("sandbox/<str:key>/body", sandbox.body, name="sandbox_body"),
    path("", include("newsletter.urls")),
]
