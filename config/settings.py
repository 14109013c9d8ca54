"""Django settings, and the only place that reads the environment. Every variable is explained in `.env.example`."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from csp.constants import NONCE, NONE, SELF
from django.urls import reverse_lazy

from config.app_settings import LOOPBACK, AppSettings
from config.environment import Environment, create_secrets
from config.logging import FORMATS, LEVELS, build_logging

BASE_DIR = Path(__file__).resolve().parent.parent
env = Environment(BASE_DIR / ".env")

DATA_DIR = env.path("DATA_DIR", "var", BASE_DIR)
env.add_file(create_secrets(DATA_DIR))

# A unix socket's path may be 107 bytes at most, so the sockets live in a short folder, not in a deep clone's DATA_DIR.
_instance = hashlib.sha256(str(DATA_DIR).encode()).hexdigest()[:10]
RUNTIME_DIR = Path(tempfile.gettempdir()) / f"dialoop-{os.getuid()}-{_instance}"

SECRET_KEY = env.text("SECRET_KEY")
DEBUG = env.flag("DEBUG", False)
HOST = env.text("HOST", "127.0.0.1")
PORT = env.whole("PORT", 8000, 1, 65535)
PUBLIC_URL = env.origin("PUBLIC_URL")
_public_host = urlsplit(PUBLIC_URL).hostname
ALLOWED_HOSTS = list(env.texts("ALLOWED_HOSTS", ("localhost", "127.0.0.1", "[::1]")))
if _public_host and _public_host not in ALLOWED_HOSTS:
    ALLOWED_HOSTS.append(_public_host)
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL] if PUBLIC_URL else []

REDIS_URL = env.url("REDIS_URL", "", ("redis", "rediss", "unix"))
REDIS_IS_EMBEDDED = not REDIS_URL
if REDIS_IS_EMBEDDED:
    REDIS_URL = f"unix://{RUNTIME_DIR}/valkey.sock?db=0"

DIALOOP = AppSettings(
    data_dir=DATA_DIR,
    model_cache_dir=env.path("MODEL_CACHE_DIR", "model_cache", BASE_DIR),
    runtime_dir=RUNTIME_DIR,
    host=HOST,
    port=PORT,
    public_url=PUBLIC_URL,
    redis_url=REDIS_URL,
    redis_is_embedded=REDIS_IS_EMBEDDED,
    encryption_keys=env.encryption_keys("ENCRYPTION_KEYS"),
    openai_api_key=env.key("OPENAI_API_KEY"),
    openai_base_url=env.url("OPENAI_BASE_URL", "", ("http", "https")),
    openai_models=env.texts("OPENAI_MODELS", ("gpt-3.5-turbo", "gpt-4o-mini", "gpt-4.1-mini", "gpt-5-mini")),
    huggingface_api_token=env.key("HUGGINGFACE_API_TOKEN"),
    huggingface_models=env.texts("HUGGINGFACE_MODELS"),
    default_model=env.text("DEFAULT_MODEL", "smollm2-135m-instruct"),
    fallback_model=env.text("FALLBACK_MODEL"),
    context_messages=env.whole("CONTEXT_MESSAGES", 10, 0, 10_000),
    max_message_chars=env.whole("MAX_MESSAGE_CHARS", 100_000, 1, 1_000_000),
    max_new_tokens=env.whole("MAX_NEW_TOKENS", 512, 1, 1_000_000),
    temperature=env.decimal("TEMPERATURE", 0.7, 0.0, 2.0),
    temperature_is_set=bool(env.text("TEMPERATURE")),
    request_timeout=env.decimal("REQUEST_TIMEOUT", 60.0, 0.1, 3600.0),
    max_retries=env.whole("MAX_RETRIES", 2, 0, 10),
    messages_per_minute=env.whole("MESSAGES_PER_MINUTE", 60, 0, 1_000_000),
    use_gpu=env.choice("USE_GPU", "auto", ("auto", "true", "false")),
    engine_url=env.url("ENGINE_URL", "http://127.0.0.1:8010", ("http", "https")),
    engine_api_key=env.generated("ENGINE_API_KEY"),
    engine_memory_mb=env.whole("ENGINE_MEMORY_MB", 4096, 256),
    engine_max_batch=env.whole("ENGINE_MAX_BATCH", 32, 1, 1024),
    training_workers=env.whole("TRAINING_WORKERS", 1, 1, 64),
    training_processes=env.whole("TRAINING_PROCESSES", 1, 1, 64),
    signup=env.choice("SIGNUP", "approval", ("open", "approval", "closed")),
    superuser_username=env.text("DJANGO_SUPERUSER_USERNAME"),
    superuser_email=env.text("DJANGO_SUPERUSER_EMAIL"),
    superuser_password=env.text("DJANGO_SUPERUSER_PASSWORD"),
)

LOGGING = build_logging(env.choice("LOG_LEVEL", "info", LEVELS), env.choice("LOG_FORMAT", "console", FORMATS))

INSTALLED_APPS = [
    "config",  # first: its runserver is Daphne's, with an embedded Valkey beside it
    "unfold",
    "django.contrib.admin.apps.SimpleAdminConfig",  # config/urls.py finds the admin pages; workers never load them
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "csp",
    "django_htmx",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "channels",
    "django_celery_beat",
    "accounts",
    "models_hub",
    "chat",
    "finetuning",
]

MIDDLEWARE = [
    "config.request_log.request_log",
    "config.health.answer_probes",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "config.csp.PolicyMiddleware",
    "config.api_errors.ApiErrorMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "accounts.middleware.LastSeenMiddleware",
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
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
                "csp.context_processors.nonce",
            ]
        },
    }
]

_database = env.database("DATABASE_URL", f"sqlite:///{DATA_DIR}/dialoop.sqlite3")
if _database["ENGINE"].endswith("sqlite3"):
    # django-unfold loads psycopg where it can, for fields SQLite has not: 9 MB of the web process for nothing.
    sys.modules.setdefault("psycopg", None)  # type: ignore[arg-type]
    _database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-16000;",
    }
    # A file, not memory: tests must meet WAL and locks as they are in use.
    _database["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}
else:
    _database.setdefault("OPTIONS", {})["pool"] = {"min_size": 1, "max_size": 16, "timeout": 20}
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

_redis_options = {} if REDIS_URL.startswith("unix") else {"health_check_interval": 30}
CACHES = {
    "default": {
        "BACKEND": "config.cache.ForgivingRedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "cache",
        "OPTIONS": _redis_options,
    }
}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        # redis-py's own timeout equals the layer's blocking read: without a longer one, idle sockets die every 5 s.
        "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": 30}], "prefix": "layer"},
    }
}

# Celery spells a unix socket its own way.
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "chat.tasks.purge_bin": {"queue": "default"},
    "config.tasks.clear_expired_sessions": {"queue": "default"},
    "models_hub.tasks.check_connections": {"queue": "default"},
    "finetuning.tasks.check_schedule": {"queue": "default"},
    "finetuning.tasks.clear_withdrawn": {"queue": "default"},
    "finetuning.tasks.clean_up_datasets": {"queue": "default"},
    "finetuning.tasks.clean_up_jobs": {"queue": "default"},
    "finetuning.tasks.decide_about_rows": {"queue": "default"},
    "finetuning.tasks.freeze_version": {"queue": "default"},
    "finetuning.tasks.run_import": {"queue": "default"},
    "finetuning.tasks.run_job": {"queue": "training"},
    "finetuning.tasks.tend_datasets": {"queue": "default"},
    "finetuning.tasks.tend_jobs": {"queue": "default"},
    "finetuning.tasks.validate_job": {"queue": "default"},
}
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BEAT_SCHEDULER = "config.beat:HeartbeatScheduler"
CELERY_BEAT_SCHEDULE = {
    "purge-bin": {"task": "chat.tasks.purge_bin", "schedule": timedelta(hours=1)},
    "clear-expired-sessions": {"task": "config.tasks.clear_expired_sessions", "schedule": timedelta(days=1)},
    "check-connections": {"task": "models_hub.tasks.check_connections", "schedule": timedelta(minutes=1)},
    "clear-withdrawn": {
        "task": "finetuning.tasks.clear_withdrawn",
        "schedule": timedelta(minutes=1),
        "options": {"expires": 60},
    },
    "tend-jobs": {
        "task": "finetuning.tasks.tend_jobs",
        "schedule": timedelta(seconds=3),
        "options": {"expires": 10},  # ticks that no worker took are not made up for
    },
    "tend-datasets": {
        "task": "finetuning.tasks.tend_datasets",
        "schedule": timedelta(seconds=5),
        "options": {"expires": 10},
    },
    "clean-up-datasets": {
        "task": "finetuning.tasks.clean_up_datasets",
        "schedule": timedelta(minutes=10),
        "options": {"expires": 300},
    },
    "clean-up-jobs": {"task": "finetuning.tasks.clean_up_jobs", "schedule": timedelta(hours=1)},
}
CELERY_TIMEZONE = "UTC"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = reverse_lazy("account_login")
LOGIN_REDIRECT_URL = "/"
ACCOUNT_ADAPTER = "accounts.adapter.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS = False
ACCOUNT_EMAIL_SUBJECT_PREFIX = "[Dialoop] "
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_FORMS = {
    "login": "accounts.forms.LoginForm",
    "signup": "accounts.forms.SignupForm",
    "change_password": "accounts.forms.ChangePasswordForm",
    "reset_password": "accounts.forms.ResetPasswordForm",
    "reset_password_from_key": "accounts.forms.ResetPasswordKeyForm",
    "reauthenticate": "accounts.forms.ReauthenticateForm",
}
# A class of 30 behind one address signs in within the same minute; guessing one person's password stays slow.
ACCOUNT_RATE_LIMITS = {
    "login": "300/m/ip",
    "login_failed": "100/m/ip,10/5m/key",
    "signup": "100/m/ip",
    "reset_password": "60/m/ip,5/m/key",
    "reset_password_from_key": "60/m/ip",
}
MFA_ADAPTER = "accounts.adapter.MfaAdapter"
MFA_FORMS = {
    "authenticate": "accounts.forms.AuthenticateForm",
    "reauthenticate": "accounts.forms.ReauthenticateWithCodeForm",
    "activate_totp": "accounts.forms.ActivateTotpForm",
}
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "Dialoop"
MFA_ALLOW_UNVERIFIED_EMAIL = True  # addresses are not verified here at all
_email = env.email("EMAIL_URL", "consolemail://")
EMAIL_BACKEND = _email["EMAIL_BACKEND"]
EMAIL_HOST, EMAIL_PORT = _email["EMAIL_HOST"] or "localhost", _email["EMAIL_PORT"] or 25
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _email["EMAIL_HOST_USER"] or "", _email["EMAIL_HOST_PASSWORD"] or ""
EMAIL_USE_TLS, EMAIL_USE_SSL = _email.get("EMAIL_USE_TLS", False), _email.get("EMAIL_USE_SSL", False)
DEFAULT_FROM_EMAIL = env.text("DEFAULT_FROM_EMAIL", "dialoop@localhost")

UNFOLD = {
    "SITE_TITLE": "Dialoop",
    "SITE_HEADER": "Dialoop",
    "SITE_SYMBOL": "all_inclusive",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "config.admin_sidebar.favicon"}],
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": "8px",
    # The accent of static/css/base.css, lighter and darker.
    "COLORS": {
        "primary": {
            "50": "#eef8f5",
            "100": "#d5efe8",
            "200": "#aee0d3",
            "300": "#7fccba",
            "400": "#58c2ab",
            "500": "#1f8f7b",
            "600": "#0e6b5c",
            "700": "#0a564a",
            "800": "#0a453c",
            "900": "#0a3831",
            "950": "#041f1b",
        }
    },
    "DASHBOARD_CALLBACK": "config.dashboard.page.dashboard",
    "SIDEBAR": {"show_search": True, "navigation": "config.admin_sidebar.navigation"},
}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "config.static_storage.HashedStaticFilesStorage"
    },
}
MEDIA_ROOT = DATA_DIR / "media"

# An answer can load nothing from outside. /admin/ has a looser policy of its own (config/csp.py): unfold needs it.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "manifest-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https://")
SESSION_COOKIE_SAMESITE = "Lax"
if SESSION_COOKIE_SECURE:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Limits by address must not count everybody behind a proxy as one. There is a proxy where others come by https, or to a
# port that only this machine reaches; elsewhere X-Forwarded-For is the caller's own word, and not listened to.
ALLAUTH_TRUSTED_PROXY_COUNT = 1 if SESSION_COOKIE_SECURE or (PUBLIC_URL and HOST in LOOPBACK) else 0
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024
