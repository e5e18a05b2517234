"""Django's own admin for the data of both apps."""

from . import deliveries, issues, newsletters, operations, subscribers

__all__ = ["deliveries", "issues", "newsletters", "operations", "subscribers"]
