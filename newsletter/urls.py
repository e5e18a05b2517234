"""The public addresses. They stand in mails that were sent: they never change."""

from __future__ import annotations

from django.urls import path

from .views import confirm, pages, unsubscribe

urlpatterns = [
    path("", pages.home, name="home"),
    path("n/<slug:newsletter>/", pages.archive, name="archive"),
    path("n/<slug:newsletter>/<slug:slug>/", pages.issue, name="issue"),
    path("u/<slug:token>/", unsubscribe.unsubscribe, name="unsubscribe"),
    path("c/<slug:token>/", confirm.confirm, name="confirm"),
]
