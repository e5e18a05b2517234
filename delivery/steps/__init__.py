"""The steps of a release, each a job of its own: it looks where the issue stands, does its part, and says what follows.

A second run finds that the issue moved on and does nothing.
"""

from .common import STEP_OF_STATE, block, enqueue_step, step_gave_up
from .mail import close, freeze, report
from .podcast import await_podcast, late_podcast
from .post import PUBLISH, REMOVE, UPDATE, await_live, publish, remove_post, update_post

__all__ = [
    "PUBLISH",
    "REMOVE",
    "STEP_OF_STATE",
    "UPDATE",
    "await_live",
    "await_podcast",
    "block",
    "close",
    "enqueue_step",
    "freeze",
    "late_podcast",
    "publish",
    "remove_post",
    "report",
    "step_gave_up",
    "update_post",
]
