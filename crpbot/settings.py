"""All settings of the service, read from the environment.

There are two profiles. *embedded* (the default) needs no configuration: SQLite, Redis on a socket in the state folder, files
in a folder, loopback only. *production* has no default for secrets and does not start while one is missing.
"""

import contextlib
import hashlib
import os
import secrets
import stat
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from botocore.config import Config
from django.core.exceptions import ImproperlyConfigured

from accounts.roles import Role
from crpbot import logs
from crpbot.environment import Environment

BASE_DIR = Path(__file__).resolve().parent.parent
env = Environment()

PROFILE = env.str("CRPBOT_PROFILE", "embedded")
if PROFILE not in ("embedded", "production"):
    raise ImproperlyConfigured(f"CRPBOT_PROFILE is {PROFILE!r}; use 'embedded' or 'production'.")
IS_EMBEDDED = PROFILE == "embedded"

REQUIRED_IN_PRODUCTION = {
    "CRPBOT_SECRET_KEY": "a long random text that signs sessions and audit events",
    "CRPBOT_DATABASE_URL": "postgres://user:password@host:5432/name",
    "CRPBOT_REDIS_URL": "redis://host:6379/0",
    "CRPBOT_ALLOWED_HOSTS": "the names the service is reached by, comma-separated",
    "CRPBOT_S3_BUCKET": "the bucket for datasets, checkpoints and bundles",
    "CRPBOT_S3_ACCESS_KEY": "its access key",
    "CRPBOT_S3_SECRET_KEY": "its secret key",
}
if not IS_EMBEDDED:
    missing = [
        f"{name} ({what})"
        for name, what in REQUIRED_IN_PRODUCTION.items()
        if not os.environ.get(name, "").strip()
    ]
    if missing:
        raise ImproperlyConfigured("The production profile needs: " + "; ".join(missing) + ".")

STATE_DIR = Path(env.str("CRPBOT_STATE_DIR", str(BASE_DIR / "var" / "state"))).resolve()
if IS_EMBEDDED:
    try:
        STATE_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ImproperlyConfigured(
            f"CRPBOT_STATE_DIR is {str(STATE_DIR)[:200]!a}, and cannot be made ({error.strerror}): name another folder."
        ) from error


def _embedded_secret() -> str:
    """The secret of this state folder, created once: it needs no configuration and differs between machines."""
    path = STATE_DIR / "secret_key"
    if not path.exists():
        descriptor, draft = tempfile.mkstemp(dir=STATE_DIR)
        with os.fdopen(descriptor, "w") as out:
            out.write(secrets.token_urlsafe(48))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)  # the first process wins; the others read its secret
        Path(draft).unlink()
    return path.read_text()


def _embedded_redis() -> str:
    """A Unix socket in the state folder, or in a private folder when that path is too long for the kernel."""
    socket = STATE_DIR / "redis.sock"
    if len(str(socket)) > 100:
        short = hashlib.sha256(str(STATE_DIR).encode()).hexdigest()[:12]
        socket = Path(tempfile.gettempdir()) / f"crpbot-{os.getuid()}-{short}" / "redis.sock"
        socket.parent.mkdir(mode=0o700, exist_ok=True)
        owned = socket.parent.lstat()
        if (owned.st_uid, owned.st_mode) != (os.getuid(), stat.S_IFDIR | 0o700):  # no link either
            raise ImproperlyConfigured(
                f"{socket.parent} belongs to another user, or others may write to it. Remove it, or set CRPBOT_STATE_DIR"
                " to a shorter path."
            )
    return f"unix://{socket}"


SECRET_KEY = env.str("CRPBOT_SECRET_KEY", "") or _embedded_secret()
# Earlier secret keys. Sessions and audit events that were made with them stay valid.
SECRET_KEY_FALLBACKS = env.list("CRPBOT_SECRET_KEY_FALLBACKS", default=[])
for _name, _keys in {
    "CRPBOT_SECRET_KEY": [SECRET_KEY],
    "CRPBOT_SECRET_KEY_FALLBACKS": SECRET_KEY_FALLBACKS,
}.items():
    if any(len(key) < 32 or len(set(key)) < 10 or key.startswith("django-insecure") for key in _keys):
        raise ImproperlyConfigured(
            f"{_name} can be guessed: give it 32 characters or more, at random, for example by"
            ' python3 -c "import secrets; print(secrets.token_urlsafe(48))".'
        )
DEBUG = False
ALLOWED_HOSTS = env.list("CRPBOT_ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CRPBOT_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "crpbot.apps.GateAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "axes",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "django_filters",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "crpbot.apps.CrpbotConfig",
    "audit",
    "accounts",
    "training",
    "studies",
    "machines",
    "gates",
    "deploy",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "crpbot.web.static_files.StaticFiles",
    "crpbot.web.concurrency.LimitConcurrency",
    "crpbot.web.middleware.add_headers",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "crpbot.web.middleware.RequireAnyRole",
    "accounts.identity.middleware.NoteSessionUse",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "crpbot.web.middleware.ShowDomainErrors",
]

ROOT_URLCONF = "crpbot.urls"
ASGI_APPLICATION = "crpbot.asgi.application"
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
                "crpbot.web.context.add_service_context",
            ],
        },
    }
]

# How long a client waits for another system, in seconds. Every client takes its deadline from here, because a pin must
# answer within one second whatever else fails (docs/adr/0009).
REDIS_TIMEOUT_SECONDS = 0.25
BROKER_TIMEOUT_SECONDS = 1.0
FILE_CHECK_SECONDS = 0.5  # the check of the fallback's files before a pin
STORE_CONNECT_SECONDS = 2.0
STORE_READ_SECONDS = 5.0  # for each part of an answer
CLOUD_CONNECT_SECONDS = 2.0
CLOUD_READ_SECONDS = 5.0  # a call of the cloud that starts and stops machines
DATABASE_CONNECT_SECONDS = 2
DATABASE_LOCK_SECONDS = env.int("CRPBOT_DATABASE_LOCK_SECONDS", 10)
DATABASE_STATEMENT_SECONDS = env.int("CRPBOT_DATABASE_STATEMENT_SECONDS", 60)
DATABASE_IDLE_SECONDS = env.int("CRPBOT_DATABASE_IDLE_SECONDS", 60)  # within a transaction
DATABASE_ANSWER_SECONDS = env.int("CRPBOT_DATABASE_ANSWER_SECONDS", 10)  # of the server to a web process
# The database connections of a web process, and how many of them are kept for pins and the edge. Others have one each.
DATABASE_POOL = env.int("CRPBOT_DATABASE_POOL", 16) if "crpbot.asgi" in sys.modules else 0
DATABASE_POOL_RESERVED = 6

DATABASES: dict[str, dict[str, Any]]
if IS_EMBEDDED and not env.str("CRPBOT_DATABASE_URL", ""):
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": STATE_DIR / "gate.sqlite3",
            "OPTIONS": {
                # IMMEDIATE: a decision takes its write lock at once. Upgrading a read lock could deadlock.
                "transaction_mode": "IMMEDIATE",
                "timeout": 30,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
            },
        }
    }
else:
    DATABASES = {"default": env.database("CRPBOT_DATABASE_URL")}
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    DATABASES["default"]["OPTIONS"] = {
        **DATABASES["default"].get("OPTIONS", {}),
        "connect_timeout": DATABASE_CONNECT_SECONDS,
        # Milliseconds. A session that stops inside a transaction must not keep the audit head locked.
        "options": f"-c lock_timeout={DATABASE_LOCK_SECONDS * 1000}"
        f" -c statement_timeout={DATABASE_STATEMENT_SECONDS * 1000}"
        f" -c idle_in_transaction_session_timeout={DATABASE_IDLE_SECONDS * 1000}",
    }
    if DATABASE_POOL:
        from crpbot.database import BoundedConnection

        DATABASES["default"]["OPTIONS"]["pool"] = {
            "connection_class": BoundedConnection,
            "min_size": 1,
            "max_size": DATABASE_POOL,
            "timeout": DATABASE_CONNECT_SECONDS,
        }
    else:
        DATABASES["default"]["CONN_MAX_AGE"] = 60
# The roles that `manage.py migrate` sets up as the owner; a web process or worker gets only its own URL, and none of these.
DATABASE_ROLE_URLS = {
    "application": env.str("CRPBOT_DATABASE_APPLICATION_URL", ""),
    "worker": env.str("CRPBOT_DATABASE_WORKER_URL", ""),
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.redis("CRPBOT_REDIS_URL") or _embedded_redis()
CACHES = {
    "default": {  # one per process
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    },
    "shared": {  # shared by the web processes; short timeouts, so that no request waits for it
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "crpbot",
        "OPTIONS": {
            "socket_timeout": REDIS_TIMEOUT_SECONDS,
            "socket_connect_timeout": REDIS_TIMEOUT_SECONDS,
            # Django's own serializer unpickles, so that anyone who can write to Redis could run code here.
            "serializer": "crpbot.web.counters.IntegerSerializer",
        },
    },
}

# Pages of an interrupted fetch of candles. In production the command runs in a container that keeps nothing.
FETCHED_DIR = STATE_DIR / "fetched" if IS_EMBEDDED else None


def _bucket(name: str, *, access_key: str, secret_key: str, endpoint: str, region: str) -> dict[str, Any]:
    return {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": name,
            "access_key": access_key,
            "secret_key": secret_key,
            "endpoint_url": endpoint or None,
            "region_name": region or None,
            "querystring_auth": False,
        },
    }


if IS_EMBEDDED and not env.str("CRPBOT_S3_BUCKET", ""):
    _files: dict[str, Any] = {
        "BACKEND": "training.atomic_storage.AtomicFileStorage",
        "OPTIONS": {"location": STATE_DIR / "files"},
    }
else:
    _files = _bucket(
        env.str("CRPBOT_S3_BUCKET"),
        access_key=env.str("CRPBOT_S3_ACCESS_KEY"),
        secret_key=env.str("CRPBOT_S3_SECRET_KEY"),
        endpoint=env.address("CRPBOT_S3_ENDPOINT"),
        region=env.str("CRPBOT_S3_REGION", ""),
    )
AWS_S3_CLIENT_CONFIG = Config(
    connect_timeout=STORE_CONNECT_SECONDS,
    read_timeout=STORE_READ_SECONDS,
    retries={"total_max_attempts": 2, "mode": "standard"},
)
# Where backups are written: a bucket with keys of its own, so that who has the service's keys deletes no backup; or a
# folder, best on another machine's disk. Only reconcile and commands need it.
BACKUP_DIR = Path(
    env.str("CRPBOT_BACKUP_DIR", str(STATE_DIR / "backups") if IS_EMBEDDED else "/var/lib/crpbot/backups")
)
# How often reconcile makes a backup, and drills the newest. 0: never.
BACKUP_HOURS = env.float("CRPBOT_BACKUP_HOURS", 0.0 if IS_EMBEDDED else 24.0)
BACKUP_DRILL_DAYS = env.float("CRPBOT_BACKUP_DRILL_DAYS", 0.0 if IS_EMBEDDED else 7.0)
# The newest of each of so many days, weeks and months is kept. Empty: all are.
_kept = env.list("CRPBOT_BACKUP_KEEP", default=["7", "4", "12"])
BACKUP_KEEP = [int(count) for count in _kept if count.strip().isdecimal()]
if len(BACKUP_KEEP) != len(_kept) or len(_kept) not in (0, 3):
    raise ImproperlyConfigured(
        "CRPBOT_BACKUP_KEEP is three numbers, of days, weeks and months, such as 7,4,12; or empty, to keep all backups."
    )
# An alarm is raised when the newest backup is older than this. 0: never.
BACKUP_LATE_SECONDS = env.float("CRPBOT_BACKUP_LATE_SECONDS", 0.0 if IS_EMBEDDED else 2 * 86_400.0)
# Public keys of age, comma-separated: what backups are encrypted for. Without any they are not encrypted.
BACKUP_RECIPIENTS = env.list("CRPBOT_BACKUP_RECIPIENTS", default=[])
if any(not recipient.startswith("age1") for recipient in BACKUP_RECIPIENTS):
    raise ImproperlyConfigured(
        "CRPBOT_BACKUP_RECIPIENTS names public keys of age, comma-separated; each begins with age1. `age-keygen` prints one."
    )
if env.str("CRPBOT_BACKUP_BUCKET", ""):
    _backups = _bucket(
        env.str("CRPBOT_BACKUP_BUCKET"),
        access_key=env.str("CRPBOT_BACKUP_ACCESS_KEY", ""),
        secret_key=env.str("CRPBOT_BACKUP_SECRET_KEY", ""),
        endpoint=env.address("CRPBOT_BACKUP_ENDPOINT"),
        region=env.str("CRPBOT_BACKUP_REGION", ""),
    )
    if not all(_backups["OPTIONS"][name] for name in ("access_key", "secret_key")):
        raise ImproperlyConfigured(
            "CRPBOT_BACKUP_BUCKET needs keys of its own, CRPBOT_BACKUP_ACCESS_KEY and CRPBOT_BACKUP_SECRET_KEY."
        )
    _reached = [
        (store["OPTIONS"].get("endpoint_url"), store["OPTIONS"].get("access_key"))
        for store in (_files, _backups)
    ]
    if _reached[0] == _reached[1]:
        raise ImproperlyConfigured(
            "CRPBOT_BACKUP_ACCESS_KEY is that of the service's own bucket: who has that one could delete every backup."
            " Create another, which reaches only CRPBOT_BACKUP_BUCKET."
        )
else:
    _backups = {"BACKEND": "training.atomic_storage.AtomicFileStorage", "OPTIONS": {"location": BACKUP_DIR}}
STORAGES = {
    "default": _files,
    "backups": _backups,
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
STATIC_URL = "/static/"
# WhiteNoise serves the files of apps and packages and indexes them once at start: there is no collectstatic step.
WHITENOISE_USE_FINDERS = True
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
    "crpbot.web.finders.PlotlyFinder",
]
CSRF_FAILURE_VIEW = "crpbot.web.views.csrf_failure"

AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
# Wrong passwords are counted in the database, so that counting never fails open (accounts/sign_in.py). Empty: no limit.
_failures, _, _period = env.rate("CRPBOT_RATE_SIGN_IN", "20/hour").partition("/")
AXES_ENABLED = bool(_failures)
AXES_FAILURE_LIMIT = int(_failures or 0)
AXES_COOLOFF_TIME = timedelta(seconds={"s": 1, "m": 60, "h": 3600, "d": 86400}[(_period or "hour")[0]])
AXES_LOCKOUT_PARAMETERS = "accounts.sign_in.list_counts"
AXES_USERNAME_CALLABLE = "accounts.sign_in.get_counted_name"
AXES_CLIENT_IP_CALLABLE = "accounts.sign_in.get_address"
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # else an attacker would extend a refusal without end
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False
# The sign-in form answers instead of a middleware; which counts apply depends on the browser.
SILENCED_SYSTEM_CHECKS = ["axes.W002", "axes.W006"]
# Second factors, sessions and single sign-on: docs/operations/identity.md.
REQUIRE_SECOND_FACTOR = env.bool("CRPBOT_REQUIRE_SECOND_FACTOR", not IS_EMBEDDED)
SECOND_FACTOR_SECONDS = env.int("CRPBOT_SECOND_FACTOR_SECONDS", 300)
SESSION_ENGINE = "accounts.identity.session_store"
SESSION_COOKIE_AGE = env.int("CRPBOT_SESSION_SECONDS", 14 * 86_400 if IS_EMBEDDED else 12 * 3_600)
SESSION_IDLE_SECONDS = env.int("CRPBOT_SESSION_IDLE_SECONDS", 0 if IS_EMBEDDED else 1_800)  # 0: never
OIDC_ISSUER = env.str("CRPBOT_OIDC_ISSUER", "")
OIDC_NAME = env.str("CRPBOT_OIDC_NAME", "single sign-on")
OIDC_NAME_CLAIM = env.str("CRPBOT_OIDC_NAME_CLAIM", "preferred_username")
OIDC_ROLE_CLAIM = env.str("CRPBOT_OIDC_ROLE_CLAIM", "")
try:  # as in "gate-approvers=approver,gate-operators=operator"
    OIDC_ROLES = {
        value: Role(role)
        for value, _, role in (pair.rpartition("=") for pair in env.list("CRPBOT_OIDC_ROLES", default=[]))
    }
except ValueError as error:
    raise ImproperlyConfigured(
        f"CRPBOT_OIDC_ROLES names no role of this service ({error}). Write VALUE=ROLE, separated by commas, with"
        f" {', '.join(Role)} as roles."
    ) from error
if OIDC_ISSUER:
    if not IS_EMBEDDED and not OIDC_ISSUER.startswith("https://"):
        raise ImproperlyConfigured(
            f"CRPBOT_OIDC_ISSUER is {OIDC_ISSUER!r}; in production it begins with https://."
        )
    if bool(OIDC_ROLE_CLAIM) != bool(OIDC_ROLES):
        raise ImproperlyConfigured("Set CRPBOT_OIDC_ROLE_CLAIM and CRPBOT_OIDC_ROLES together, or neither.")
SOCIALACCOUNT_PROVIDERS: dict[str, dict[str, Any]] = {
    "openid_connect": {
        "provider_class": "accounts.identity.oidc.Provider",
        "OAUTH_PKCE_ENABLED": True,
        "APPS": [],
    }
}
if OIDC_ISSUER:
    SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"] = [
        {
            "provider_id": "oidc",
            "name": OIDC_NAME,
            "client_id": env.str("CRPBOT_OIDC_CLIENT_ID"),
            "secret": env.str("CRPBOT_OIDC_CLIENT_SECRET"),
            "settings": {"server_url": OIDC_ISSUER.rstrip("/")},
        }
    ]
SOCIALACCOUNT_ADAPTER = "accounts.identity.adapters.SocialAdapter"
SOCIALACCOUNT_LOGIN_ON_GET = True  # the policy of the pages lets no form lead to another site
ACCOUNT_ADAPTER = "accounts.identity.adapters.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_RATE_LIMITS = (
    False  # axes counts passwords, and accounts/identity/factors.py codes, both in the database
)
ACCOUNT_REAUTHENTICATION_TIMEOUT = SECOND_FACTOR_SECONDS
MFA_ADAPTER = "accounts.identity.adapters.MfaAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_FORMS = {
    "authenticate": "accounts.identity.forms.SignInCodeForm",
    "reauthenticate": "accounts.identity.forms.ConfirmCodeForm",
}
MFA_TOTP_PERIOD = 30
MFA_TOTP_TOLERANCE = 1  # half minutes by which a clock may be wrong
MFA_ALLOW_UNVERIFIED_EMAIL = True
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "board"
LOGOUT_REDIRECT_URL = "sign-in"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = False

# Django's own defaults hold: no sniffing, referrers for this site only, no frames, cookies that are HttpOnly and Lax.
if not IS_EMBEDDED:
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    SECURE_HSTS_SECONDS = env.int("CRPBOT_HSTS_SECONDS", 31_536_000)
    SECURE_SSL_REDIRECT = env.bool("CRPBOT_SSL_REDIRECT", True)
    SECURE_REDIRECT_EXEMPT = [r"^healthz(/live)?$"]
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Size limits of a request body and of the two uploads: see crpbot/web/limits.py.
DATA_UPLOAD_MAX_MEMORY_SIZE = env.int("CRPBOT_BODY_LIMIT_BYTES", 256 * 1024)
IMPORTED_MODEL_UPLOAD_LIMIT_BYTES = env.int("CRPBOT_IMPORTED_MODEL_UPLOAD_LIMIT_BYTES", 16 * 1024 * 1024)
DATASET_UPLOAD_LIMIT_BYTES = env.int("CRPBOT_DATASET_UPLOAD_LIMIT_BYTES", 64 * 1024 * 1024)

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "accounts.authentication.BearerAuthentication",
        "accounts.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.authentication.CanView"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["crpbot.api.parsing.StrictJSONParser"],
    "DEFAULT_FILTER_BACKENDS": ["crpbot.api.filtering.StrictFilterBackend"],
    "DEFAULT_PAGINATION_CLASS": "crpbot.api.pagination.StrictPagination",
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "crpbot.api.negotiation.FixedRendererNegotiation",
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_SCHEMA_CLASS": "crpbot.api.openapi.ProblemSchema",
    "EXCEPTION_HANDLER": "crpbot.api.problems.build_problem_response",
    "DEFAULT_THROTTLE_CLASSES": ["accounts.throttling.RequestLimit"],
    # Per second, minute, hour or day; empty means no limit. See docs/operations/install.md.
    "DEFAULT_THROTTLE_RATES": {
        "reads": env.rate("CRPBOT_RATE_READS", "3000/min"),
        "files": env.rate("CRPBOT_RATE_FILES", "60000/min"),
        "decisions": env.rate("CRPBOT_RATE_DECISIONS", "120/min"),
        "uploads": env.rate("CRPBOT_RATE_UPLOADS", "30/min"),
        "bots": env.rate("CRPBOT_RATE_BOTS", "60000/min"),
        "unauthenticated": env.rate("CRPBOT_RATE_UNAUTHENTICATED", "120/min"),
    },
    # The number of proxies whose X-Forwarded-For is trusted.
    "NUM_PROXIES": env.int("CRPBOT_PROXIES", 0 if IS_EMBEDDED else 1),
    "NON_FIELD_ERRORS_KEY": "body",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "crpbot model gate",
    "DESCRIPTION": "Which model may the bot trust right now, and why.",
    "VERSION": "1",
    "SERVE_PERMISSIONS": ["accounts.authentication.CanView"],
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "COMPONENT_SPLIT_PATCH": False,  # a PATCH names all its fields, like any other decision
    "SERVE_INCLUDE_SCHEMA": False,
    "ENUM_NAME_OVERRIDES": {  # used in the list and in the detail of releases
        "BackupKindEnum": "crpbot.backup.api.KINDS",
        "KindEnum": "deploy.api.decisions.KINDS",
        "ReleaseStateEnum": "deploy.api.releases.STATES",
        "ReleasePurposeEnum": "deploy.api.releases.PURPOSES",
        "RunStateEnum": "training.api.runs.STATES",
        "StudyStateEnum": "studies.api.STATES",
        "TrialStateEnum": "studies.api.TRIAL_STATES",
    },
}

# The folder of the private signing keys and of the log of signed revisions.
SIGNING_KEYS_DIR = Path(
    env.str("CRPBOT_SIGNING_KEYS_DIR", str(STATE_DIR / "keys") if IS_EMBEDDED else "/var/lib/crpbot/keys")
).resolve()
# Where heads of the audit chain are kept, by which a chain that was cut short is noticed.
AUDIT_HEADS_FILE = Path(env.str("CRPBOT_AUDIT_HEADS_FILE", str(SIGNING_KEYS_DIR / "audit_heads.jsonl")))
# Without the token nobody reads /metrics. Web processes that share the folder answer for each other (common/metrics.py).
METRICS_TOKEN = env.str("CRPBOT_METRICS_TOKEN", "")
if METRICS_TOKEN and len(METRICS_TOKEN) < 32:
    raise ImproperlyConfigured(
        "CRPBOT_METRICS_TOKEN can be guessed: give it 32 characters or more, at random."
    )
METRICS_DIR = (
    Path(
        env.str(
            "CRPBOT_METRICS_DIR", str(STATE_DIR / "metrics") if IS_EMBEDDED else "/var/lib/crpbot/metrics"
        )
    )
    if "crpbot.asgi" in sys.modules
    else None
)
# Whether a release trained or measured on a simulated market may go live: for trials, never with money.
ALLOW_SIMULATED = env.bool("CRPBOT_ALLOW_SIMULATED", IS_EMBEDDED)
# Where the packages of own recipes lie (docs/models.md). Only the sandbox imports them.
_recipes = env.str(
    "CRPBOT_RECIPES_DIR", str(STATE_DIR / "recipes") if IS_EMBEDDED else "/var/lib/crpbot/recipes"
)
RECIPES_DIR = Path(_recipes).resolve()
if not _recipes or any(
    place.resolve().is_relative_to(RECIPES_DIR) for place in (BASE_DIR, STATE_DIR, SIGNING_KEYS_DIR)
):
    raise ImproperlyConfigured(
        f"CRPBOT_RECIPES_DIR is {_recipes or 'empty'}: packages could read the service's code, state or keys there. Name a"
        " folder of its own."
    )
# Whether files from outside are read although this machine cannot isolate their reader (docs/adr/0007).
ALLOW_WEAK_SANDBOX = env.bool("CRPBOT_ALLOW_WEAK_SANDBOX", IS_EMBEDDED)
# Limits of a release: by default 90 minutes and about $1.50 on a g5.xlarge.
RELEASE_TIME_LIMIT_SECONDS = env.int("CRPBOT_RELEASE_TIME_LIMIT_SECONDS", 90 * 60)
RELEASE_SPENDING_LIMIT_USD = env.usd("CRPBOT_RELEASE_SPENDING_LIMIT_USD", "1.50")
RELEASE_DEADLINE_SECONDS = env.int("CRPBOT_RELEASE_DEADLINE_SECONDS", 3 * 60 * 60)
# The most that one study may be given: by default four hours of machine time and $5.
STUDY_TIME_LIMIT_SECONDS = env.int("CRPBOT_STUDY_TIME_LIMIT_SECONDS", 4 * 60 * 60)
STUDY_SPENDING_LIMIT_USD = env.usd("CRPBOT_STUDY_SPENDING_LIMIT_USD", "5.00")
WORKER_RATE_USD_PER_HOUR = env.usd("CRPBOT_WORKER_RATE_USD_PER_HOUR", "1.006")  # g5.xlarge, on demand
# GPU machines of AWS EC2 that run only while runs wait for them. Without a region there is none, and nobody asks for one.
# Keys are boto3's own: the role of the instance that reconcile runs on, or AWS_ACCESS_KEY_ID and its like.
MACHINE_REGION = env.str("CRPBOT_MACHINE_REGION", "")
MACHINE_INSTANCE = env.str("CRPBOT_MACHINE_INSTANCE", "")  # a given instance, started and stopped; or
MACHINE_TEMPLATE = env.str(
    "CRPBOT_MACHINE_TEMPLATE", ""
)  # the launch template of instances that are terminated
MACHINE_TYPE = env.str("CRPBOT_MACHINE_TYPE", "g5.xlarge")
MACHINE_MARKETS = env.list("CRPBOT_MACHINE_MARKETS", default=["spot", "on-demand"])
MACHINE_IMAGE = env.str("CRPBOT_MACHINE_IMAGE", "crpbot-gate-gpu")
MACHINE_PARAMETER = env.str("CRPBOT_MACHINE_PARAMETER", "/crpbot/worker")  # of the worker's environment
MACHINE_SLOTS = env.int("CRPBOT_MACHINE_SLOTS", 3)
MACHINE_NAME = env.str("CRPBOT_MACHINE_NAME", "crpbot")
MACHINE_IDLE_SECONDS = env.float("CRPBOT_MACHINE_IDLE_SECONDS", 300.0)
MACHINE_START_SECONDS = env.float("CRPBOT_MACHINE_START_SECONDS", 600.0)
MACHINE_LOOK_SECONDS = env.float("CRPBOT_MACHINE_LOOK_SECONDS", 10.0)
MACHINE_MONTHLY_LIMIT_USD = env.usd("CRPBOT_MACHINE_MONTHLY_LIMIT_USD", "50.00")
MACHINE_ENDPOINT = env.address("CRPBOT_MACHINE_ENDPOINT")
if MACHINE_REGION and bool(MACHINE_INSTANCE) == bool(MACHINE_TEMPLATE):
    raise ImproperlyConfigured(
        "CRPBOT_MACHINE_REGION needs one of CRPBOT_MACHINE_INSTANCE, a given instance, and CRPBOT_MACHINE_TEMPLATE, a launch"
        " template."
    )
if not MACHINE_MARKETS or not set(MACHINE_MARKETS) <= {"spot", "on-demand"}:
    raise ImproperlyConfigured("CRPBOT_MACHINE_MARKETS names spot, on-demand or both, in the order to try.")
if MACHINE_SLOTS < 1:
    raise ImproperlyConfigured("CRPBOT_MACHINE_SLOTS is the number of parallel runs of a machine: 1 or more.")
LEASE_SECONDS = env.float("CRPBOT_LEASE_SECONDS", 20.0)
# The message of a waiting job is sent again after this long.
RESEND_SECONDS = env.float("CRPBOT_RESEND_SECONDS", 15.0)
RECONCILE_EVERY_SECONDS = env.float("CRPBOT_RECONCILE_EVERY_SECONDS", 2.0)
# An alarm is raised when reconcile has completed no pass for this long.
RECONCILE_LATE_SECONDS = env.float("CRPBOT_RECONCILE_LATE_SECONDS", 60.0)
BOARD_SHARED_SECONDS = 1.0  # one reading of the board serves all browsers that refresh it
MEASURING_TIME_LIMIT_SECONDS = env.int("CRPBOT_MEASURING_TIME_LIMIT_SECONDS", 600)
# The fallback is measured again when its last measurement is older than this or made by another code version; at twice this
# age an alarm is raised. A failed measurement is repeated after the retry time.
FALLBACK_CHECK_SECONDS = env.int("CRPBOT_FALLBACK_CHECK_SECONDS", 24 * 60 * 60)
FALLBACK_RETRY_SECONDS = env.int("CRPBOT_FALLBACK_RETRY_SECONDS", 10 * 60)
# The interval of heartbeats; a bot counts as live for three intervals. A bot that is behind or silent for BOT_LATE raises an
# alarm. After BOT_GONE nothing waits for it. After BOT_KEPT it is deleted, as are acknowledgements of that age.
BOT_HEARTBEAT_SECONDS = env.int("CRPBOT_BOT_HEARTBEAT_SECONDS", 10)
BOT_LATE_SECONDS = env.int("CRPBOT_BOT_LATE_SECONDS", 60)
BOT_GONE_SECONDS = env.int("CRPBOT_BOT_GONE_SECONDS", 24 * 60 * 60)
BOT_KEPT_SECONDS = env.int("CRPBOT_BOT_KEPT_SECONDS", 30 * 24 * 60 * 60)
# Lines of the log of a run that ended are deleted after this long; its epochs and results stay.
LOG_KEPT_DAYS = env.int("CRPBOT_LOG_KEPT_DAYS", 90)
IMPORT_TIME_LIMIT_SECONDS = env.int("CRPBOT_IMPORT_TIME_LIMIT_SECONDS", 120)
CODE_VERSION = env.str("CRPBOT_CODE_VERSION", "0.1.0")

LOG_FORMAT = env.str("CRPBOT_LOG_FORMAT", "text" if IS_EMBEDDED else "json")
if LOG_FORMAT not in logs.FORMATS:
    raise ImproperlyConfigured(f"CRPBOT_LOG_FORMAT is {LOG_FORMAT!r}; use 'text' or 'json'.")
_level = env.str("CRPBOT_LOG_LEVEL", "WARNING" if IS_EMBEDDED else "INFO")
if _level not in logs.LEVELS:
    raise ImproperlyConfigured(f"CRPBOT_LOG_LEVEL is {_level!a}; use one of {', '.join(logs.LEVELS)}.")
LOGGING = logs.build_logging(LOG_FORMAT, _level)
# The OpenTelemetry collector that traces are sent to over OTLP/HTTP. Empty: there are none.
OTLP_ENDPOINT = env.address("CRPBOT_OTLP_ENDPOINT")
