"""Every setting of the server, read from the environment once; what belongs to a run is a field of Run instead."""

import hashlib
from math import ceil
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.management.utils import get_random_secret_key

from fl.lifecycle import AssignmentState, DeviceState, RoundState, RunState
from qflare.env import BadSetting, env_bool, env_list, env_number, env_str, name_in, networks_in, text_kept_in

BASE_DIR = Path(__file__).resolve().parent.parent
QFLARE_VERSION = "0.1.0"

# ── where things are ──────────────────────────────────────────────────────────────────────────────────────────────────
QFLARE_DATA_DIR = Path(env_str("QFLARE_DATA_DIR") or BASE_DIR / "var").resolve()
MEDIA_ROOT = QFLARE_DATA_DIR / "files"
QFLARE_SERVER_KEY = QFLARE_DATA_DIR / "server-key.pem"
QFLARE_SEEN_HEADS = QFLARE_DATA_DIR / "seen-heads.json"

# ── who may come in ───────────────────────────────────────────────────────────────────────────────────────────────────
DEBUG = env_bool("QFLARE_DEBUG", False)
ALLOWED_HOSTS = env_list("QFLARE_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
QFLARE_ALLOWED_ORIGINS = env_list("QFLARE_ALLOWED_ORIGINS")
if "*" in QFLARE_ALLOWED_ORIGINS and not DEBUG:
    raise BadSetting("QFLARE_ALLOWED_ORIGINS=*: any page could act for a signed-in person; list the origins instead")
QFLARE_PUBLIC_DASHBOARD = env_bool("QFLARE_PUBLIC_DASHBOARD", False)
QFLARE_METRICS_TOKEN = env_str("QFLARE_METRICS_TOKEN")
"""Opens /metrics to whoever sends it as a bearer; without it, to signed-in viewers alone."""
QFLARE_BEHIND_TLS = env_bool("QFLARE_BEHIND_TLS", False)
QFLARE_TRUSTED_PROXIES = networks_in(
    "QFLARE_TRUSTED_PROXIES", env_list("QFLARE_TRUSTED_PROXIES", "127.0.0.1,::1" if QFLARE_BEHIND_TLS else "")
)
"""Whose X-Forwarded-For, -Proto and -Host are believed."""

# A secret that the environment does not give is made once and kept in the data folder, mode 0600.
SECRET_KEY = env_str("QFLARE_SECRET_KEY") or text_kept_in(QFLARE_DATA_DIR / "secret-key", get_random_secret_key)

# ── what it is made of ────────────────────────────────────────────────────────────────────────────────────────────────
INSTALLED_APPS = [
    "qflare",  # whose runserver comes before Daphne's
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "corsheaders",
    "fl",
    "realtime",
]
MIDDLEWARE = [
    "realtime.probes.answer_ready",
    "django.middleware.security.SecurityMiddleware",
    "qflare.middleware.content_security_policy",
    "qflare.middleware.origin_of_acts",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "qflare.middleware.language_of_answers",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "qflare.urls"
ASGI_APPLICATION = "qflare.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
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
                "fl.context.page",
            ]
        },
    }
]


def _database() -> dict[str, Any]:
    """Return the database of DATABASE_URL, or SQLite in the data folder, each set up as the event log needs it."""
    url = env_str("DATABASE_URL") or f"sqlite:///{QFLARE_DATA_DIR / 'qflare.sqlite3'}"
    database: dict[str, Any] = dict(dj_database_url.parse(url))
    if database["ENGINE"] == "django.db.backends.sqlite3":
        # Writers queue at BEGIN instead of failing at their first write; readers never wait.
        database["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
        }
        # To open one costs milliseconds, so threads keep theirs.
        database["CONN_MAX_AGE"] = None
        # An in-memory database is one connection's; threads and processes need the file.
        database["TEST"] = {"NAME": str(QFLARE_DATA_DIR / "test.sqlite3")}
    else:
        # Connections that idle in threads are the pool's, not each thread's. It looks for a database that is away anew
        # for each who asks, and not in ever longer pauses of its own.
        wait = env_number("QFLARE_DATABASE_WAIT_SECONDS", 5, 0.1, 600)
        pool = {"min_size": 1, "max_size": 20, "timeout": wait, "reconnect_timeout": wait}
        # One that is gone without a word, with its machine or its network, would be waited for as the system does.
        # No statement_timeout: it is kept by the very server that says nothing, and a purge may well take long.
        seconds = ceil(wait)
        silence = {"connect_timeout": seconds, "tcp_user_timeout": int(1000 * wait)}
        silence |= {"keepalives_idle": seconds, "keepalives_interval": seconds}
        database["OPTIONS"] = {**silence, **database.get("OPTIONS", {}), "pool": pool}
        # Those that a restart of the database has ended are found before they are used.
        database["CONN_HEALTH_CHECKS"] = True
    return database


DATABASES = {"default": _database()}

REDIS_URL = env_str("REDIS_URL")
_of_this_secret = hashlib.sha256(f"names on Redis: {SECRET_KEY}".encode()).hexdigest()[:12]
QFLARE_REDIS_PREFIX = name_in("QFLARE_REDIS_PREFIX", env_str("QFLARE_REDIS_PREFIX") or f"qflare-{_of_this_secret}")
"""What this installation's names on Redis begin with, so that others may use the same; all its processes have one."""
QFLARE_CHANNEL_LAYER = env_str("QFLARE_CHANNEL_LAYER")
"""Which of the two layers Redis is used by: `pubsub`, or `core`."""
if QFLARE_CHANNEL_LAYER not in ("", "pubsub", "core"):
    raise BadSetting(f"QFLARE_CHANNEL_LAYER={QFLARE_CHANNEL_LAYER!r}: must be pubsub or core")
if QFLARE_CHANNEL_LAYER and not REDIS_URL:
    raise BadSetting(f"QFLARE_CHANNEL_LAYER={QFLARE_CHANNEL_LAYER} needs a Redis: set REDIS_URL too, or neither")
QFLARE_GROUP_EXPIRY_SECONDS = int(env_number("QFLARE_GROUP_EXPIRY_SECONDS", 86_400, 1, 86_400 * 365))
"""How long the core layer remembers a member of a group that does not join again."""
CHANNEL_CAPACITY = 20_000
"""One member a process reads its channel at once, so that this is only reached while the loop is blocked."""


def _channel_layer() -> dict[str, Any]:
    """Return the channel layer that is asked for, set up so that a Redis that goes away is survived."""
    if not REDIS_URL:
        return {"BACKEND": "realtime.memory_layer.MemoryChannelLayer", "CONFIG": {"capacity": CHANNEL_CAPACITY}}
    if QFLARE_CHANNEL_LAYER == "core":
        # It blocks for 5 s in one command. redis-py gives up after as many, and an idle layer would break every time.
        slow = {"address": REDIS_URL, "socket_timeout": 15}
        config = {"hosts": [slow], "capacity": CHANNEL_CAPACITY, "group_expiry": QFLARE_GROUP_EXPIRY_SECONDS}
        config["prefix"] = QFLARE_REDIS_PREFIX
        return {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": config}
    host: dict[str, Any] = {"address": REDIS_URL}
    if not REDIS_URL.startswith("unix:"):
        # Where the system ends a silent subscription, redis-py takes the error for "no message yet" and asks again
        # without ever yielding: the process would hang. So the system is not to look; `realtime.watch` does.
        host["socket_keepalive"] = False
    config = {"hosts": [host], "prefix": QFLARE_REDIS_PREFIX}
    return {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": config}


CHANNEL_LAYERS = {"default": _channel_layer()}

STORAGES = {
    "default": {"BACKEND": "fl.files.DurableFileSystemStorage"},
    "staticfiles": {"BACKEND": "qflare.static.ModuleManifestStaticFilesStorage"},
}
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = QFLARE_DATA_DIR / "static"
# Nothing asks for the plain names, so nothing is compressed twice.
WHITENOISE_KEEP_ONLY_HASHED_FILES = True

# ── people ────────────────────────────────────────────────────────────────────────────────────────────────────────────
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "overview"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
SESSION_ENGINE = "fl.sessions"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = QFLARE_BEHIND_TLS
CSRF_TRUSTED_ORIGINS = [origin for origin in QFLARE_ALLOWED_ORIGINS if origin != "*"]
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
CORS_ALLOWED_ORIGINS = [origin for origin in QFLARE_ALLOWED_ORIGINS if origin != "*"]
CORS_ALLOW_ALL_ORIGINS = "*" in QFLARE_ALLOWED_ORIGINS
CORS_ALLOW_CREDENTIALS = True
CORS_URLS_REGEX = r"^/api/.*$"

# ── the API ───────────────────────────────────────────────────────────────────────────────────────────────────────────
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "fl.api.authentication.DeviceTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["fl.api.permissions.ByRole"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "fl.api.pagination.Pages",
    "PAGE_SIZE": 50,
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "fl.api.errors.answer",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "QFLARE",
    "DESCRIPTION": "Everything the pages can do, and what devices need.",
    "VERSION": QFLARE_VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1/",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "fl.api.schema.complete_document",
    ],
    "ENUM_NAME_OVERRIDES": {
        "RunState": list(RunState),
        "RoundState": list(RoundState),
        "AssignmentState": list(AssignmentState),
        "DeviceState": list(DeviceState),
        "UpdateState": "fl.models.update.UpdateState",
    },
}

# ── federated learning ────────────────────────────────────────────────────────────────────────────────────────────────
QFLARE_TORCH_THREADS = int(env_number("QFLARE_TORCH_THREADS", 1, 1, 256))
QFLARE_CLAIM_SECONDS = env_number("QFLARE_CLAIM_SECONDS", 10, 0.2, 3600)
"""How long an aggregating or evaluating coordinator is trusted without a sign of life; it renews at a third."""
QFLARE_CLOCK_SECONDS = env_number("QFLARE_CLOCK_SECONDS", 1, 0.05, 60)
"""How often a coordinator looks at deadlines when nothing wakes it."""
QFLARE_SWEEP_SECONDS = env_number("QFLARE_SWEEP_SECONDS", 3600, 1, 86_400 * 30)
"""Age at which a file that no row names is swept."""
QFLARE_TRASH_DAYS = env_number("QFLARE_TRASH_DAYS", 30, 1, 36_500)
"""How long runs lie in the trash before they are deleted for good."""
QFLARE_EQUAL_ERRORS_SECONDS = env_number("QFLARE_EQUAL_ERRORS_SECONDS", 10, 0, 3600)
"""For how long equal errors are only counted after one was told; then their number is told."""
QFLARE_PROGRESS_SECONDS = env_number("QFLARE_PROGRESS_SECONDS", 5, 0, 3600)
"""How often a device's progress is written to its assignment, at most."""

# ── real time ─────────────────────────────────────────────────────────────────────────────────────────────────────────
QFLARE_HEARTBEAT_SECONDS = env_number("QFLARE_HEARTBEAT_SECONDS", 60, 0.2, 3600)
QFLARE_PING_SECONDS = env_number("QFLARE_PING_SECONDS", 75, 0.1, 3600)
"""After how much silence a peer is pinged. Above the heartbeat, so that pings only find peers that have none."""
QFLARE_PONG_SECONDS = env_number("QFLARE_PONG_SECONDS", 20, 0.1, 3600)
"""How long a peer may take to answer a ping. Below it, since on Daphne the next one would forget this one's timer."""
QFLARE_LEASE_SECONDS = env_number("QFLARE_LEASE_SECONDS", 150, 0.5, 86_400)
"""How long a device counts as online without a heartbeat."""
QFLARE_PRESENCE_GRACE_SECONDS = env_number("QFLARE_PRESENCE_GRACE_SECONDS", 15, 0, 3600)
"""How long after its socket closed a device is announced offline."""
QFLARE_MAX_REPLACEMENTS = int(env_number("QFLARE_MAX_REPLACEMENTS", 3, 1, 30_000))
"""How often a device may connect while it is connected, before it is taken for two."""
QFLARE_REPLACEMENTS_WITHIN_SECONDS = env_number("QFLARE_REPLACEMENTS_WITHIN_SECONDS", 60, 0.1, 86_400)
"""Within which time such connections are counted together."""
QFLARE_POLL_SECONDS = env_number("QFLARE_POLL_SECONDS", 3, 0.05, 60)
"""How often the hub compares stream heads with the log."""
QFLARE_STALL_SECONDS = env_number("QFLARE_STALL_SECONDS", 5, 0.1, 600)
"""How long a peer may take nothing while something waits for it; then it is ended, and resumes when it comes back."""
QFLARE_TRANSFER_SECONDS = env_number("QFLARE_TRANSFER_SECONDS", 60, 0.1, 3600)
"""How long a peer may send nothing of a request's body, or take nothing of an answer; then it is ended."""
QFLARE_RECHECK_SECONDS = env_number("QFLARE_RECHECK_SECONDS", 60, 0.1, 3600)
"""How often sessions, roles and devices of all who are connected are looked at again."""
QFLARE_TRUST_SECONDS = env_number("QFLARE_TRUST_SECONDS", 300, 0, 86_400)
"""How long people stay connected while the database cannot be asked whether they still may."""
QFLARE_DEVICE_TOKEN_SECONDS = int(env_number("QFLARE_DEVICE_TOKEN_SECONDS", 900, 1, 86_400))
QFLARE_HANDSHAKE_SECONDS = env_number("QFLARE_HANDSHAKE_SECONDS", 10, 0.2, 300)
QFLARE_RESUME_EVENTS = int(env_number("QFLARE_RESUME_EVENTS", 20_000, 1, 10_000_000))
"""How many missed events of a stream are replayed; a client further behind gets a snapshot. So many are always kept."""
QFLARE_RESUME_HOURS = env_number("QFLARE_RESUME_HOURS", 24, 0, 87_600)
"""Events younger than this are always kept."""
QFLARE_EVENT_DAYS = env_number("QFLARE_EVENT_DAYS", 90, 0, 36_500)
"""Age at which events that nobody can resume from any more are deleted; those of runs stay as long as the run."""
QFLARE_AUDIT_DAYS = env_number("QFLARE_AUDIT_DAYS", 400, 0, 36_500)
"""Age at which entries of the audit log are deleted; with 0 they stay for ever."""
QFLARE_MAX_CONNECTIONS = int(env_number("QFLARE_MAX_CONNECTIONS", 5000, 1, 1_000_000))
"""Of one process, as are the limits that follow."""
QFLARE_MAX_CONNECTIONS_PER_ADDRESS = int(env_number("QFLARE_MAX_CONNECTIONS_PER_ADDRESS", 1000, 1, 1_000_000))
"""Devices that have proved their keys are not counted."""
QFLARE_MAX_CONNECTIONS_PER_USER = int(env_number("QFLARE_MAX_CONNECTIONS_PER_USER", 100, 1, 1_000_000))
QFLARE_HANDSHAKES_PER_SECOND = env_number("QFLARE_HANDSHAKES_PER_SECOND", 200, 0.1, 1_000_000)
QFLARE_HANDSHAKE_BURST = int(env_number("QFLARE_HANDSHAKE_BURST", 1000, 1, 1_000_000))
"""How many may connect at once when it was quiet before."""
QFLARE_MESSAGES_PER_SECOND = env_number("QFLARE_MESSAGES_PER_SECOND", 5, 0.1, 100_000)
"""What is taken from one connection; two seconds' worth may come at once, of a device two and a half."""
QFLARE_ADMIN_MESSAGES_PER_SECOND = env_number("QFLARE_ADMIN_MESSAGES_PER_SECOND", 10, 0.1, 100_000)
QFLARE_DEVICE_MESSAGES_PER_SECOND = env_number("QFLARE_DEVICE_MESSAGES_PER_SECOND", 20, 0.1, 100_000)
QFLARE_MAX_MISTAKES = int(env_number("QFLARE_MAX_MISTAKES", 10, 1, 100_000))
"""After so many messages that cannot be taken a connection ends, if they come within:"""
QFLARE_MISTAKES_WITHIN_SECONDS = env_number("QFLARE_MISTAKES_WITHIN_SECONDS", 60, 0.1, 86_400)
QFLARE_RETURN_SECONDS = (
    env_number("QFLARE_RETURN_AFTER_SECONDS", 0.5, 0, 600),
    env_number("QFLARE_RETURN_WITHIN_SECONDS", 10, 0, 600),
)
"""When clients of a server that restarts or is crowded come back: spread over this, or all would come at once."""
if QFLARE_RETURN_SECONDS[0] > QFLARE_RETURN_SECONDS[1]:
    raise BadSetting("QFLARE_RETURN_AFTER_SECONDS must not be above QFLARE_RETURN_WITHIN_SECONDS")
QFLARE_ACKNOWLEDGE_SECONDS = env_number("QFLARE_ACKNOWLEDGE_SECONDS", 1, 0.05, 3600)
"""How often it is written down how far devices know their own streams."""
QFLARE_QUEUE_FRAMES = int(env_number("QFLARE_QUEUE_FRAMES", 256, 1, 1_000_000))
QFLARE_QUEUE_BYTES = int(env_number("QFLARE_QUEUE_BYTES", 256 * 1024, 4096, 1 << 30))
"""How much waits for one connection before it is fed from the log."""
QFLARE_TICK_SECONDS = env_number("QFLARE_TICK_SECONDS", 0.25, 0.01, 60)
"""How often a tick of one key goes out, at most."""
QFLARE_REJOIN_SECONDS = env_number("QFLARE_REJOIN_SECONDS", 60, 0.1, 80_000)
"""How often a process joins its groups of the channel layer again, which forgets members after a day."""
QFLARE_LAYER_MOVE_SECONDS = env_number("QFLARE_LAYER_MOVE_SECONDS", 2, 0.05, 600)
"""How long the channel layer may take to take a member in or to let it go; who connects waits so long at most."""
QFLARE_LAYER_PAUSE_SECONDS = env_number("QFLARE_LAYER_PAUSE_SECONDS", 5, 0.1, 3600)
"""The longest pause between two tries to join a layer that is away."""
QFLARE_LAYER_SEND_SECONDS = env_number("QFLARE_LAYER_SEND_SECONDS", 5, 0.1, 600)
"""How long the channel layer may take over one message; durable events are found in the log."""
QFLARE_LAYER_WAITING = int(env_number("QFLARE_LAYER_WAITING", 1_000, 1, 10_000_000))
"""How many messages of a process wait at most for a layer that does not keep up; of more, the newest of each stream."""
QFLARE_LAYER_PATIENCE_SECONDS = env_number("QFLARE_LAYER_PATIENCE_SECONDS", 5, 0.1, 3600)
"""How long a process may not hear what it says to itself over the layer, before that counts as away."""
QFLARE_STATISTICS_SECONDS = env_number("QFLARE_STATISTICS_SECONDS", 10, 0.1, 3600)
"""How often a process writes its figures of connections."""

# ── the rest ──────────────────────────────────────────────────────────────────────────────────────────────────────────
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = True
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
"""Each by the name that it has for itself."""
LOCALE_PATHS = [BASE_DIR / "locale"]
LANGUAGE_COOKIE_AGE = 86_400 * 365
LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SAMESITE = "Lax"
LANGUAGE_COOKIE_SECURE = QFLARE_BEHIND_TLS
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "filters": {
        "without_trace": {"()": "qflare.logs.WithoutTrace"},
        "once_per_outage": {"()": "qflare.logs.OncePerOutage"},
        "without_probes": {"()": "qflare.logs.WithoutProbes"},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env_str("QFLARE_LOG_LEVEL", "INFO")},
    "loggers": {
        "channels_redis.pubsub": {"filters": ["once_per_outage"]},
        "daphne": {"level": "WARNING"},
        "django.request": {"filters": ["without_probes"]},
        "httpx": {"level": "WARNING"},
        "django.security.DisallowedHost": {"filters": ["without_trace"]},
    },
}
