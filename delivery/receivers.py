"""What `newsletter` tells, and what follows from it here; in the transaction of the change."""

from __future__ import annotations

from typing import Any

from django.dispatch import receiver

from newsletter.models import Podcast
from newsletter.signals import issue_edited

from . import queue


@receiver(issue_edited)
def stop_the_run(sender: Any, issue_id: int, **_: Any) -> None:
    queue.discard(issue_id, "the issue was edited")
    # The next run waits for its podcast anew; an episode that was found stays.
    Podcast.objects.filter(issue_id=issue_id, key="").delete()
