"""One edition of a newsletter, and the states that it goes through."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models, transaction
from django.db.models import Q

from newsletter import rendering
from newsletter.signals import issue_edited

from .clock import database_now
from .gate import queue_for_issue
from .newsletter import ONE_LINE, Newsletter
from .transition import Subject, Transition


class Refused(Exception):
    """The issue's state forbids it; the message says why and what to do."""


class IssueState(models.TextChoices):
    DRAFT = "draft"  # is being written
    APPROVED = "approved"  # its snapshot is stored; waits for its hour
    AWAITING_PODCAST = "awaiting_podcast"
    PUBLISHING = "publishing"  # the post goes to the blog
    PUBLISHED = "published"  # the post stands; waits until it is live
    SENDING = "sending"  # the audience is frozen
    SENT = "sent"  # closed by the balance
    CANCELLED = "cancelled"


S = IssueState
# old -> new; everything else is illegal (design, section 4).
MOVES: dict[str, frozenset[str]] = {
    S.DRAFT: frozenset({S.APPROVED, S.CANCELLED}),
    S.APPROVED: frozenset({S.DRAFT, S.AWAITING_PODCAST, S.CANCELLED}),
    S.AWAITING_PODCAST: frozenset({S.DRAFT, S.PUBLISHING, S.CANCELLED}),
    S.PUBLISHING: frozenset({S.DRAFT, S.PUBLISHED, S.CANCELLED}),
    S.PUBLISHED: frozenset({S.DRAFT, S.SENDING, S.CANCELLED}),
    S.SENDING: frozenset({S.SENT, S.CANCELLED}),
    S.SENT: frozenset(),
    S.CANCELLED: frozenset(),
}
RUNNING = (S.AWAITING_PODCAST, S.PUBLISHING, S.PUBLISHED, S.SENDING)
MAILED = (S.SENDING, S.SENT)  # has a ledger; what is resent after the close leaves it `sent`
EDITABLE = (S.DRAFT, S.APPROVED, S.AWAITING_PODCAST, S.PUBLISHING, S.PUBLISHED)
CONTENT = ("title", "slug", "summary", "author", "tags", "release_date", "markdown")


def check_tags(value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(tag, str) and tag for tag in value):
        raise ValidationError('Tags are a list of words, such as ["rust", "weekly"].')


class IssueQuerySet(models.QuerySet["Issue"]):
    def running(self) -> IssueQuerySet:
        return self.filter(state__in=RUNNING)

    def unhindered(self) -> IssueQuerySet:
        return self.filter(paused_at=None, blocked_reason="")

    def may_send(self) -> IssueQuerySet:
        return self.unhindered().filter(state__in=MAILED)


class Issue(models.Model):
    newsletter = models.ForeignKey(Newsletter, models.PROTECT)
    slug = models.CharField(
        max_length=100,
        validators=[
            RegexValidator(
                r"^(?!\d+$)[a-z0-9]+(-[a-z0-9]+)*$",
                "Takes a-z, 0-9 and single hyphens, and not digits alone.",
            )
        ],
    )
    title = models.CharField(max_length=200, validators=[ONE_LINE])
    summary = models.CharField(max_length=500, blank=True, validators=[ONE_LINE])
    author = models.CharField(max_length=100, blank=True, validators=[ONE_LINE])
    tags = models.JSONField(default=list, blank=True, validators=[check_tags])
    release_date = models.DateField()
    markdown = models.TextField()

    state = models.CharField(max_length=20, choices=IssueState, default=S.DRAFT, editable=False)
    snapshot = models.JSONField(null=True, editable=False)  # what was approved, and is sent
    approved_by = models.CharField(max_length=150, blank=True, editable=False)
    approved_at = models.DateTimeField(null=True, editable=False)
    started_at = models.DateTimeField(null=True, editable=False)
    paused_at = models.DateTimeField(null=True, editable=False)
    paused_reason = models.CharField(max_length=500, blank=True, editable=False)
    blocked_reason = models.CharField(max_length=500, blank=True, editable=False)
    without_podcast = models.BooleanField(default=False, editable=False)
    without_blog = models.BooleanField(default=False, editable=False)

    publishing_since = models.DateTimeField(null=True, editable=False)
    post_path = models.CharField(max_length=500, blank=True, editable=False)
    post_sha = models.CharField(
        max_length=40, blank=True, editable=False
    )  # of the blob that we wrote
    post_tried = models.JSONField(default=list, editable=False)  # (path, sha), perhaps unanswered
    published_at = models.DateTimeField(null=True, editable=False)
    web_url = models.CharField(max_length=700, blank=True, editable=False)  # the slot: filled once
    audience_frozen_at = models.DateTimeField(null=True, editable=False)
    audience = models.PositiveIntegerField(null=True, editable=False)
    closed_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = IssueQuerySet.as_manager()

    class Meta:
        permissions = [
            ("approve_issue", "Can approve an issue"),
            ("release_issue", "Can release, pause, resume and cancel an issue"),
        ]
        constraints = [
            models.UniqueConstraint(name="issue_slug_once", fields=["newsletter", "slug"]),
            models.CheckConstraint(name="issue_state_is_known", condition=Q(state__in=S.values)),
            models.CheckConstraint(
                name="issue_approved_has_snapshot",
                condition=Q(state__in=["draft", "cancelled"]) | Q(snapshot__isnull=False),
            ),
            models.CheckConstraint(
                name="issue_frozen_has_audience",
                condition=Q(audience_frozen_at__isnull=True, audience__isnull=True)
                | Q(audience_frozen_at__isnull=False, audience__gt=0),
            ),
            models.CheckConstraint(
                name="issue_sending_is_frozen",
                condition=~Q(state__in=["sending", "sent"]) | Q(audience_frozen_at__isnull=False),
            ),
        ]
        indexes = [
            # Monday's question: the approved issue with the oldest date.
            models.Index(fields=["newsletter", "state", "release_date"], name="issue_due"),
            # The sweep's question: which runs are under way.
            models.Index(
                fields=["state"],
                condition=Q(state__in=["awaiting_podcast", "publishing", "published", "sending"]),
                name="issue_running",
            ),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def label(self) -> str:
        """NEWSLETTER/SLUG: how commands and notices name it."""
        return f"{self.newsletter.slug}/{self.slug}"

    @property
    def may_send(self) -> bool:
        """Its audience is frozen, and nothing of its own holds the send."""
        return self.state in MAILED and not self.paused_at and not self.blocked_reason

    def document(self) -> rendering.Document:
        """What it says now."""
        newsletter = self.newsletter
        return rendering.Document(
            newsletter_slug=newsletter.slug,
            newsletter_name=newsletter.name,
            language=newsletter.language,
            sender_name=newsletter.sender_name,
            postal_address=newsletter.postal_address,
            slug=self.slug,
            title=self.title,
            date=self.release_date,
            summary=self.summary,
            author=self.author,
            tags=tuple(self.tags),
            markdown=self.markdown,
        )

    def approved_document(self) -> rendering.Document:
        """What it said when it was approved: the only thing that is published and sent."""
        if self.snapshot is None:
            raise Refused(f"{self.label} is not approved.")
        return rendering.Document.from_json(self.snapshot)

    def approve(self, *, actor: str) -> None:
        """draft -> approved, with a snapshot. Refused names everything that forbids it."""
        with transaction.atomic():
            queue_for_issue(self.pk)
            fresh = Issue.objects.select_for_update().get(pk=self.pk)
            if fresh.state != S.DRAFT:
                raise Refused(f"{fresh.label} is {fresh.state}, not a draft: nothing to approve.")
            document = fresh.document()
            problems = rendering.problems(document)
            if problems:
                raise Refused(f"{fresh.label} cannot be approved: " + " ".join(problems))
            fresh.move(
                S.APPROVED,
                reason="approved",
                actor=actor,
                snapshot=document.to_json() | fresh.newsletter.envelope(),
                approved_by=actor,
                approved_at=database_now(),
            )
        self.refresh_from_db()

    def edit(self, *, actor: str, **content: Any) -> None:
        """Change the content. Until the freeze this revokes the approval; after it, Refused."""
        with transaction.atomic():
            queue_for_issue(self.pk)
            fresh = Issue.objects.select_for_update().get(pk=self.pk)
            changed = {k: v for k, v in content.items() if getattr(fresh, k) != v}
            if changed:
                fresh._edit(changed, actor)
        self.refresh_from_db()

    def move(self, new: str, *, reason: str, actor: str, **values: Any) -> bool:
        """The one door for a change of state: False where somebody else moved it first.

        Call it inside the transaction of whatever belongs to the move. An illegal move raises.
        """
        old = self.state
        if new not in MOVES[old]:
            raise Refused(f"{self.label} is {old}; it cannot become {new}.")
        with transaction.atomic():
            won = Issue.objects.filter(pk=self.pk, state=old).update(state=new, **values)
            if not won:
                return False
            Transition.objects.record(Subject.ISSUE, [self.pk], old, new, reason, actor)
        self.state = new
        return True

    def pause(self, *, reason: str, actor: str) -> bool:
        """Hold the run where it stands, or what is resent after the close; rows on the wire finish. Clocks go on."""
        # The gate holds off the senders: after our commit only rows already `sending` go out.
        with transaction.atomic():
            queue_for_issue(self.pk)
            Issue.objects.select_for_update().filter(pk=self.pk).first()
            return self._note(
                "paused",
                reason,
                actor,
                Q(paused_at=None, state__in=(S.APPROVED, *RUNNING, S.SENT)),
                paused_at=database_now(),
                paused_reason=reason[:500],
            )

    def resume(self, *, actor: str, reason: str = "") -> bool:
        return self._note(
            "resumed", reason, actor, ~Q(paused_at=None), paused_at=None, paused_reason=""
        )

    def block(self, *, reason: str, actor: str) -> bool:
        """A step gave up for good: the run stands until an operator decides."""
        with transaction.atomic():
            queue_for_issue(self.pk)
            return self._note(
                "blocked",
                reason,
                actor,
                Q(blocked_reason="", state__in=(*RUNNING, S.SENT)),
                blocked_reason=reason[:500],
            )

    def unblock(self, *, actor: str, reason: str) -> bool:
        return self._note("unblocked", reason, actor, ~Q(blocked_reason=""), blocked_reason="")

    def cancel(self, *, actor: str, reason: str = "") -> bool:
        """-> cancelled. The rows of the ledger follow in the same transaction: `release.cancel`."""
        with transaction.atomic():
            queue_for_issue(self.pk)
            fresh = Issue.objects.select_for_update().get(pk=self.pk)
            if fresh.state == S.CANCELLED:
                return False
            return fresh.move(S.CANCELLED, reason=reason or "cancelled", actor=actor)

    def note(self, reason: str, *, actor: str) -> None:
        """A line of history without a change of state."""
        Transition.objects.record(Subject.ISSUE, [self.pk], self.state, self.state, reason, actor)

    def _edit(self, changed: dict[str, Any], actor: str) -> None:
        if self.state not in EDITABLE:
            raise Refused(
                f"{self.label} is {self.state}: what is being mailed, or was, cannot be changed."
            )
        if "slug" in changed and self.post_sha:
            raise Refused(f"The post of {self.label} stands already: its slug stays as it is.")
        for name, value in changed.items():
            setattr(self, name, value)
        self._check()
        Issue.objects.filter(pk=self.pk).update(**changed)
        if self.state == S.DRAFT:
            return
        self.move(
            S.DRAFT,
            reason="edited: " + ", ".join(sorted(changed)),
            actor=actor,
            snapshot=None,
            approved_at=None,
            approved_by="",
            started_at=None,
            publishing_since=None,
            published_at=None,
            web_url="",
            blocked_reason="",
            paused_at=None,
            paused_reason="",
            without_podcast=False,
            without_blog=False,
        )
        issue_edited.send(Issue, issue_id=self.pk)

    def _check(self) -> None:
        try:
            self.full_clean()
        except ValidationError as error:
            raise Refused("; ".join(error.messages)) from None

    def _note(self, what: str, reason: str, actor: str, where: Q, **values: Any) -> bool:
        with transaction.atomic():
            if not Issue.objects.filter(where, pk=self.pk).update(**values):
                return False
            text = f"{what}: {reason}" if reason else what
            state = Issue.objects.values_list("state", flat=True).get(pk=self.pk)
            Transition.objects.record(Subject.ISSUE, [self.pk], state, state, text, actor)
        self.refresh_from_db()
        return True
