from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandParser

from delivery import health, queue
from delivery.health import LaneHealth
from delivery.models.job import Lane
from delivery.templatetags.operations import ago, in_words
from newsletter.management.base import CarteiroCommand
from newsletter.models import Refused, database_now

LINE = "{:<9} {:>7} {:>8}  {}"


class Command(CarteiroCommand):
    help = (
        "Show the lanes: how many jobs are due, how long the oldest has waited, whose workers live, and who paused "
        "them. Or pause one (its jobs stay queued, what runs comes to its end), or resume it. Exit codes: 0; "
        "2 refused, also where it is paused or resumed already."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", nargs="?", choices=["pause", "resume"], help="to change one")
        parser.add_argument("lane", nargs="?", choices=Lane.values, help="which one")
        parser.add_argument("--reason", default="", help="why it is paused; others will read it")
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        action, lane, reason = options["action"], options["lane"], options["reason"].strip()
        if action and not lane:
            raise Refused(f"Say which lane to {action}: {', '.join(Lane.values)}.")
        if action == "pause":
            self._pause(lane, reason)
        elif action == "resume":
            self._resume(lane)
        elif options["json"]:
            self.stdout.write(
                json.dumps([_as_json(found) for found in health.lanes(database_now())])
            )
        else:
            self._show()

    def _pause(self, lane: str, reason: str) -> None:
        if not reason:
            raise Refused(f"Say why {lane} is paused: --reason TEXT.")
        if not queue.pause_lane(lane, actor=self.actor, reason=reason):
            raise Refused(f"{lane} is paused already.")
        self.stdout.write(f"{lane} is paused. What runs comes to its end.")

    def _resume(self, lane: str) -> None:
        if not queue.resume_lane(lane, actor=self.actor):
            raise Refused(f"{lane} is not paused.")
        self.stdout.write(f"{lane} goes on.")

    def _show(self) -> None:
        now = database_now()
        self.stdout.write(LINE.format("lane", "due", "oldest", "workers"))
        for found in health.lanes(now):
            works = ", ".join(f"{work} ({ago(at, now)})" for work, at in found.works) or "none"
            oldest = in_words(found.oldest_seconds) if found.depth else "-"
            self.stdout.write(LINE.format(found.lane, found.depth, oldest, works))
            if pause := found.pause:
                self.stdout.write(
                    f"  paused since {pause.since:%Y-%m-%d %H:%M} UTC by {pause.actor}: {pause.reason}"
                )


def _as_json(found: LaneHealth) -> dict[str, Any]:
    pause = found.pause
    return {
        "lane": found.lane,
        "due": found.depth,
        "oldest_seconds": found.oldest_seconds,
        "workers": [{"work": work, "at": at.isoformat()} for work, at in found.works],
        "paused": pause
        and {"by": pause.actor, "reason": pause.reason, "since": pause.since.isoformat()},
    }
