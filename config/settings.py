"""Django's settings, derived from the environment (`config/environment.py`). There is no other settings file."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from config import environment
from config.logs import logging_config

BASE_DIR = Path(__file__).resolve().parent.parent
ENV = environment.read()
# Every variable is a setting of the same name.
globals().update(dict(ENV))

_public = urlsplit(ENV.PUBLIC_URL)
_https = _public.scheme == "https"

SECRET_KEY = ENV.SECRET_KEY
DEBUG = ENV.DEBUG
ALLOWED_HOSTS = [_public.hostname or "", *ENV.ALLOWED_HOSTS]
CSRF_TRUSTED_ORIGINS = [f"{_public.scheme}://{_public.netloc}"]

INSTALLED_APPS = [
    "django_q",  # before delivery, which takes its admin away again
    "newsletter",
    "delivery",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "config.middleware.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "config.middleware.ValuesNoDatabaseHolds",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

DATABASES: dict[str, dict[str, Any]] = {"default": environment.database(ENV.DATABASE_URL)}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    _file = BASE_DIR / DATABASES["default"]["NAME"]
    DATABASES["default"]["NAME"] = str(_file)
    with contextlib.suppress(OSError):  # SQLite itself says best what is wrong with the place
        _file.parent.mkdir(parents=True, exist_ok=True)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
# Without `collectstatic` the pages must look right too: they are served from the apps then.
WHITENOISE_USE_FINDERS = not STATIC_ROOT.is_dir()

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SECURE_HSTS_SECONDS = 31_536_000 if _https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = False
SECURE_SSL_REDIRECT = _https
# A probe asks gunicorn itself, without TLS. /metrics is not among them: its token does not travel in the clear.
SECURE_REDIRECT_EXEMPT = [r"^(health|ready)$"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if ENV.BEHIND_PROXY else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SILENCED_SYSTEM_CHECKS = [
    # Subdomains and the preload list belong to the domain's owner, not to us.
    "security.W005",
    "security.W021",
    # The default release hour is meant; Django doubts it for a while each day, at 07:00.
    "fields.W161",
]

# django-q2 wakes us; the rows decide. Why each value: docs/decisions/0001-jobs-on-django-q2.md
Q_CLUSTER: dict[str, Any] = {
    "name": "carteiro",
    "label": "django-q2",
    "orm": "default",
    "poll": 0.2,
    "guard_cycle": 0.5,
    "workers": 1,
    "queue_limit": 1,
    "bulk": 1,
    "recycle": 500,
    "timeout": ENV.JOB_TIMEOUT_SECONDS,
    "retry": 4 * ENV.JOB_TIMEOUT_SECONDS,
    "ack_failures": True,
    "save_limit": -1,
    "ALT_CLUSTERS": {},
}

LOGGING_CONFIG = None
logging_config(ENV.LOG_FORMAT, ENV.LOG_LEVEL)
