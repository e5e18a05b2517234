"""`python -m tests.check COMMAND`: a management command under an environment as a deployment has it."""

from __future__ import annotations

import os
import sys

os.environ |= {
    "ENV_FILE": os.devnull,
    "SECRET_KEY": "l" * 10 + "only-to-check-0123456789-abcdefghijklmnopqrstuvwxyz",
    "PUBLIC_URL": "https://news.example.org",
    "EMAIL_URL": "smtp+starttls://mail.example.org",
    "DATABASE_URL": "sqlite:///var/check.sqlite3",
    "DJANGO_SETTINGS_MODULE": "config.settings",
}

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
