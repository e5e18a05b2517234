"""A mail server for development and the demo: it accepts everything and delivers nothing."""
