"""Every address of the site."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from delivery.views import health, operations, sandbox

admin.site.site_header = "Carteiro"
admin.site.site_title = "Carteiro"
admin.site.index_title = "The house"

urlpatterns = [
    path("admin/operations/", include(operations.urlpatterns)),
    path("admin/", admin.site.urls),
    path("health", health.alive, name="health"),
    path("ready", health.ready, name="ready"),
    path("metrics", health.numbers, name="metrics"),
    path("sandbox/", sandbox.mailbox, name="sandbox"),
    path("sandbox/<str:key>/", sandbox.message, name="sandbox_message"),
    path("sandbox/<str:key>/body", sandbox.body, name="sandbox_body"),
    path("", include("newsletter.urls")),
]
