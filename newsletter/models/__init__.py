"""The nouns of writing and reading: one a file."""

from .address import AddressKey, address_key, normalise_address
from .clock import database_now
from .given import Given, GivenUpdate, GivenUpdates, Statement, run_together
from .issue import Issue, Refused
from .newsletter import Newsletter
from .podcast import Podcast
from .returning import update_returning
from .subscriber import Subscriber
from .subscription import Subscription
from .suppression import Suppression
from .transition import Transition

__all__ = [
    "AddressKey",
    "Given",
    "GivenUpdate",
    "GivenUpdates",
    "Issue",
    "Newsletter",
    "Podcast",
    "Refused",
    "Statement",
    "Subscriber",
    "Subscription",
    "Suppression",
    "Transition",
    "address_key",
    "database_now",
    "normalise_address",
    "run_together",
    "update_returning",
]
