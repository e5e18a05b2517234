"""What `newsletter` and the queue tell, and what follows from it here; in the transaction of the change."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.dispatch import receiver

from newsletter.models import Podcast, Subscription, database_now
from newsletter.signals import confirmation_requested, issue_edited

from . import notifying, queue, transactional
from .models import Job
from .signals import breaker_changed, job_died, job_discarded


@receiver(issue_edited)
def stop_the_run(sender: Any, issue_id: int, **_: Any) -> None:
    queue.discard(issue_id, "the issue was edited")
    # The next run waits for its podcast anew; an episode that was found stays.
    Podcast.objects.filter(issue_id=issue_id, key="").delete()


@receiver(confirmation_requested)
def ask_by_mail(sender: Any, subscription_id: int, **_: Any) -> bool:
    return transactional.request_confirmation(Subscription.objects.get(pk=subscription_id))


@receiver(job_died)
def tell_of_a_dead_job(sender: Any, row: Job, reason: str, **_: Any) -> None:
    """Once for each entry. A notice that died is not told by notices."""
    if row.name != "notify":
        notifying.tell(
            "job_dead",
            f"A job is dead: {row.key}",
            reason,
            "Try it again or discard it on the operations page.",
            level="error",
            issue=row.issue,
            once=f"{row.pk}:{row.runs}",
        )


@receiver(breaker_changed)
def tell_of_a_breaker(
    sender: Any, name: str, is_open: bool, reason: str, until: datetime | None, **_: Any
) -> None:
    """Once for each opening and each close, by the channels that are not behind it."""
    once = f"{name}:{database_now():%Y%m%d%H%M%S%f}"
    if is_open:
        notifying.tell(
            "breaker_opened",
            f"{name} does not answer",
            reason,
            f"It is asked again after {until:%H:%M:%S} UTC. What needs it waits until then, and spends no attempt.",
            level="warning",
            once=once,
            but=name,
        )
    else:
        waited = "What waited for it goes on."
        notifying.tell("breaker_closed", f"{name} answers again", waited, once=once, but=name)


@receiver(job_discarded)
def drop_its_mail(sender: Any, row: Job, actor: str, **_: Any) -> None:
    """What its job will not mail any more may be asked for again."""
    transactional.drop(row.key, f"its job was discarded by {actor}")
