"""The issue's page: what it says, where its release stands, what happened, and the buttons."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_POST

from delivery import release, sending
from delivery.models import Job, Notification
from delivery.views import preview, report
from newsletter import rendering
from newsletter.models import Issue, Refused, Transition
from newsletter.models.issue import CONTENT, EDITABLE
from newsletter.models.issue import IssueState as S
from newsletter.models.transition import Subject

from .base import history

Act = Callable[[Issue, str, str], str]  # issue, actor, reason -> what was done


class IssueForm(ModelForm):
    """Through the same door as everybody: `Issue.edit` decides what an edit means."""

    class Meta:
        model = Issue
        fields = ["newsletter", *CONTENT]

    def clean_markdown(self) -> str:
        """A browser sends CRLF, and Django strips the ends: neither is an edit that revokes an approval."""
        text = str(self.cleaned_data["markdown"]).replace("\r\n", "\n")
        before = self.instance.markdown or ""
        return before if text.strip() == before.strip() else text

    def clean_tags(self) -> list[str]:
        """An emptied field is `null` to Django, and means no tags."""
        return self.cleaned_data["tags"] or []

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        state = Issue.objects.filter(pk=self.instance.pk).values_list("state", flat=True).first()
        if state and state not in EDITABLE and set(self.changed_data) & set(CONTENT):
            raise ValidationError(f"The issue is {state}: it cannot be changed any more.")
        self._check_slug(data.get("slug"))
        return data

    def _check_slug(self, slug: str | None) -> None:
        """Django leaves a constraint unchecked where one of its fields is read-only."""
        newsletter = self.instance.newsletter_id
        taken = Issue.objects.filter(newsletter=newsletter, slug=slug).exclude(pk=self.instance.pk)
        if slug and newsletter and taken.exists():
            self.add_error("slug", "Another issue of this newsletter has that slug.")


def _approve(issue: Issue, actor: str, reason: str) -> str:
    issue.approve(actor=actor)
    return f"Approved for {issue.release_date}."


def _release(issue: Issue, actor: str, reason: str) -> str:
    return release.start(issue, actor=actor, now=True)


def _pause(issue: Issue, actor: str, reason: str) -> str:
    if not issue.pause(reason=reason or f"by {actor}", actor=actor):
        raise Refused(f"{issue.label} is {issue.state}, or paused already: nothing to pause.")
    return "Paused. What is on the wire finishes."


def _resume(issue: Issue, actor: str, reason: str) -> str:
    if not release.resume(issue, actor=actor, reason=reason):
        raise Refused(f"{issue.label} is not paused.")
    return "Resumed."


def _cancel(issue: Issue, actor: str, reason: str) -> str:
    return release.cancel(issue, actor=actor, reason=reason)


def _without_podcast(issue: Issue, actor: str, reason: str) -> str:
    release.go_without(issue, podcast=True, actor=actor)
    return release.start(issue, actor=actor, now=True)


def _without_blog(issue: Issue, actor: str, reason: str) -> str:
    release.go_without(issue, blog=True, actor=actor)
    return release.start(issue, actor=actor, now=True)


def _remove_post(issue: Issue, actor: str, reason: str) -> str:
    release.remove_post(issue, actor=actor)
    return "The post is being removed."


# action -> what it does, the permission that it needs, the button's label, and when the button is shown.
BUTTONS: dict[str, tuple[Act, str, str, Callable[[Issue], bool]]] = {
    "approve": (_approve, "approve_issue", "Approve", lambda i: i.state == S.DRAFT),
    "release": (
        _release,
        "release_issue",
        "Release now",
        lambda i: i.state == S.APPROVED and not i.paused_at,
    ),
    "retry": (_release, "release_issue", "Try again", lambda i: bool(i.blocked_reason)),
    "without_podcast": (
        _without_podcast,
        "release_issue",
        "Go on without the podcast",
        lambda i: i.state == S.AWAITING_PODCAST and not i.paused_at,
    ),
    "without_blog": (
        _without_blog,
        "release_issue",
        "Go on without the blog",
        lambda i: i.state == S.PUBLISHING and not i.paused_at,
    ),
    "pause": (
        _pause,
        "release_issue",
        "Pause",
        lambda i: (
            not i.paused_at
            and i.state not in (S.DRAFT, S.CANCELLED)
            and (i.state != S.SENT or sending.owes(i))
        ),
    ),
    "resume": (_resume, "release_issue", "Resume", lambda i: i.paused_at is not None),
    "cancel": (_cancel, "release_issue", "Cancel", lambda i: i.state not in (S.SENT, S.CANCELLED)),
    "remove_post": (
        _remove_post,
        "release_issue",
        "Remove the post",
        lambda i: i.state == S.CANCELLED and bool(i.post_sha),
    ),
}


@admin.register(Issue)
class IssueAdmin(admin.ModelAdmin):
    form = IssueForm
    fields = ["newsletter", *CONTENT]  # in this order, also where some cannot be changed
    list_display = ["title", "newsletter", "release_date", "state", "audience", "is_held"]
    list_filter = ["state", "newsletter"]
    list_select_related = ["newsletter"]
    search_fields = ["title", "slug"]
    ordering = ["-release_date", "-id"]
    prepopulated_fields = {"slug": ["title"]}
    change_form_template = "admin/newsletter/issue/change_form.html"
    show_full_result_count = False
    actions = None

    @admin.display(description="held", boolean=True)
    def is_held(self, issue: Issue) -> bool | None:
        return False if issue.paused_at or issue.blocked_reason else None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Issue]:
        """The list goes without the texts."""
        rows = super().get_queryset(request)
        match = request.resolver_match
        is_list = match is not None and match.url_name == "newsletter_issue_changelist"
        return rows.defer("markdown", "snapshot") if is_list else rows

    def get_urls(self) -> list[URLPattern]:
        act = self.admin_site.admin_view(self.act)
        shown = self.admin_site.admin_view(self.preview)
        return [
            path("<path:object_id>/act/<str:action>/", act, name="newsletter_issue_act"),
            path("<path:object_id>/preview/<str:what>/", shown, name="newsletter_issue_preview"),
            *super().get_urls(),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Issue | None = None) -> list[str]:
        if obj is None:
            return []
        return ["newsletter"] if obj.state in EDITABLE else ["newsletter", *CONTENT]

    def get_prepopulated_fields(
        self, request: HttpRequest, obj: Issue | None = None
    ) -> dict[str, Any]:
        return {} if obj else {"slug": ["title"]}

    def has_delete_permission(self, request: HttpRequest, obj: Issue | None = None) -> bool:
        allowed = super().has_delete_permission(request, obj)
        return allowed and (
            obj is None or (obj.state in (S.DRAFT, S.CANCELLED) and not obj.audience)
        )

    def save_model(self, request: HttpRequest, obj: Issue, form: Any, change: bool) -> None:
        if not change:
            super().save_model(request, obj, form, change)
            return
        content = {name: form.cleaned_data[name] for name in CONTENT if name in form.cleaned_data}
        try:
            obj.edit(actor=str(request.user), **content)
        except Refused as refusal:
            self.message_user(request, str(refusal), messages.ERROR)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        issue = self.get_object(request, unquote(object_id))
        context = {**(extra_context or {}), **(_context(request, issue) if issue else {})}
        return super().change_view(request, object_id, form_url, context)

    @method_decorator(require_POST)
    def act(self, request: HttpRequest, object_id: str, action: str) -> HttpResponse:
        """One button: it changes state and returns; what crosses the network is a job."""
        issue = self._issue_or_404(request, object_id)
        if action not in BUTTONS:
            raise PermissionDenied
        act, permission, _, _ = BUTTONS[action]
        if not request.user.has_perm(f"newsletter.{permission}"):
            raise PermissionDenied
        try:
            done = act(issue, str(request.user), _reason(request))
            self.message_user(request, done, messages.SUCCESS)
        except Refused as refusal:
            self.message_user(request, str(refusal), messages.ERROR)
        return redirect(reverse("admin:newsletter_issue_change", args=[issue.pk]))

    def preview(self, request: HttpRequest, object_id: str, what: str) -> HttpResponse:
        issue = self._issue_or_404(request, object_id)
        if not self.has_view_permission(request, issue):
            raise PermissionDenied
        return preview.show(issue, what)

    def _issue_or_404(self, request: HttpRequest, object_id: str) -> Issue:
        issue: Issue | None = self.get_object(request, unquote(object_id))
        if issue is None:
            raise Http404
        return issue


def _reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "").replace("\0", "").strip()[:400]


def _pause_in_words(issue: Issue) -> dict[str, Any] | None:
    """Who paused it, and until when what waits may wait: a pause stops no clock."""
    if issue.paused_at is None:
        return None
    rows = Transition.objects.of(Subject.ISSUE, issue.pk).filter(reason__startswith="paused")
    last = rows.order_by("-id").first()
    frozen = issue.audience_frozen_at
    hours = timedelta(hours=settings.DELIVERY_EXPIRY_HOURS)
    return {
        "by": last.actor if last else "",
        "zone": issue.newsletter.zone,
        "ends": frozen + hours if frozen else None,
    }


def _context(request: HttpRequest, issue: Issue) -> dict[str, Any]:
    document = issue.document()
    editable = issue.state in EDITABLE
    buttons = [
        (action, label)
        for action, (_, permission, label, shown) in BUTTONS.items()
        if shown(issue) and request.user.has_perm(f"newsletter.{permission}")
    ]
    by_the_pause = ("resume", "cancel") if issue.paused_at else ()
    return {
        "show_save": editable,
        "show_save_and_continue": editable,
        "show_save_and_add_another": editable,
        "buttons": [each for each in buttons if each[0] not in by_the_pause],
        "pause_buttons": [each for each in buttons if each[0] in by_the_pause],
        **report.context(issue),
        "pause": _pause_in_words(issue),
        "podcast": getattr(issue, "podcast", None),
        "jobs": Job.objects.filter(issue=issue).exclude(name="notify").order_by("-id")[:20],
        "notifications": Notification.objects.filter(issue=issue).order_by("id")[:50],
        **history(Subject.ISSUE, issue.pk),
        "problems": rendering.problems(document) if issue.state == S.DRAFT else (),
        "warnings": rendering.warnings(document) if issue.state == S.DRAFT else (),
    }
