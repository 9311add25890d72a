"""Settings, all from the environment. docs/configuration.md lists every variable.

Each integration has a group of its own below. A missing or bad value stops the process with one sentence.
"""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import django_stubs_ext
from django.templatetags.static import static

from opencrane import env
from opencrane.database import parse_database_url
from opencrane.logging import configure_logging

django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent

# --- Process -------------------------------------------------------------------------------------------------------

DEBUG = env.boolean("OPENCRANE_DEBUG", False)
ENVIRONMENT = env.choice("OPENCRANE_ENVIRONMENT", "production", ["production", "development"])
SECRET_KEY = env.required_secret(
    "OPENCRANE_SECRET_KEY", "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(50))'"
)
ALLOWED_HOSTS = env.words("OPENCRANE_ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.words("OPENCRANE_TRUSTED_ORIGINS")
# As accounts.models.Role has them.
ROLES = ("admin", "operator", "viewer", "member")
LOG_LEVEL = env.choice("OPENCRANE_LOG_LEVEL", "INFO", ["DEBUG", "INFO", "WARNING", "ERROR"])
LOG_FORMAT = env.choice("OPENCRANE_LOG_FORMAT", "json", ["json", "console"])
LOGGING_CONFIG = None
configure_logging(level=LOG_LEVEL, log_format=LOG_FORMAT)

# --- Django --------------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",
    "opencrane.console.apps.ConsoleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "opencrane",
    "axes",
    "cluster",
    "accounts",
    "operations",
    "policies",
    "tenants",
    "mcpservers",
    "skills",
    "budgets",
    "awareness",
    "workloads",
]

MIDDLEWARE = [
    "opencrane.middleware.RequestContextMiddleware",
    "opencrane.middleware.ConsoleOnlyMiddleware",
]

# What only pages need: the API and the health checks go without, see ConsoleOnlyMiddleware.
CONSOLE_MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "opencrane.middleware.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "opencrane.urls"
WSGI_APPLICATION = "opencrane.wsgi.application"
APPEND_SLASH = False
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
            ]
        },
    }
]
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
# Without collectstatic (tests, a bare runserver) files are served from the apps' own folders.
WHITENOISE_USE_FINDERS = not STATIC_ROOT.is_dir()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "accounts.User"
# The first one only says no: to names and addresses with too many wrong passwords.
AUTHENTICATION_BACKENDS = [
    "accounts.lockout.LockoutBackend",
    "django.contrib.auth.backends.ModelBackend",
    "accounts.oidc.flow.OidcBackend",
]
LOGIN_URL = "/admin/login/"
LOGIN_REDIRECT_URL = "/admin/"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# --- HTTP -----------------------------------------------------------------------------------------------------------

IS_PRODUCTION = ENVIRONMENT == "production"
# Proxies that may say who the caller is and by which scheme (X-Forwarded-For, X-Forwarded-Proto); nobody by default.
TRUSTED_PROXIES = env.networks("OPENCRANE_TRUSTED_PROXIES")
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
COOKIE_SECURE = env.boolean("OPENCRANE_COOKIE_SECURE", IS_PRODUCTION)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = COOKIE_SECURE
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 3600 * env.integer("OPENCRANE_SESSION_HOURS", 12, minimum=1, maximum=720)
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = env.integer("OPENCRANE_HSTS_SECONDS", 365 * 24 * 3600 if IS_PRODUCTION else 0, minimum=0)
X_FRAME_OPTIONS = "DENY"
# Lists of grants are edited as a whole, seven inputs to a row.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 40_000
CSRF_FAILURE_VIEW = "opencrane.api.errors.handle_csrf_failure"
# Pages and metrics are not for the world; see opencrane/health.py.
METRICS_PUBLIC = env.boolean("OPENCRANE_METRICS_PUBLIC", False)
SILENCED_SYSTEM_CHECKS = [
    # The middleware these look for is there, in CONSOLE_MIDDLEWARE.
    "admin.E408",
    "admin.E409",
    "admin.E410",
    "axes.W002",
    "security.W001",
    "security.W002",
    "security.W003",
    # TLS ends at the ingress, which redirects; a redirect here would also catch probes. Subdomains are not ours.
    "security.W005",
    "security.W008",
    "security.W021",
]

# --- Secrets at rest, and requests to addresses that people have typed in -------------------------------------------

# Without a key whatever would store a secret is refused with 503; see opencrane/encryption.py.
ENCRYPTION_KEYS = env.encryption_keys("OPENCRANE_ENCRYPTION_KEYS")
# Networks that webhooks, sources and provisioners may reach although they are loopback, link-local or a metadata
# service; see opencrane/outbound.py.
OUTBOUND_ALLOW = env.networks("OPENCRANE_OUTBOUND_ALLOW")

# --- Database ------------------------------------------------------------------------------------------------------

DATABASE_POOL_SIZE = env.integer("OPENCRANE_DATABASE_POOL_SIZE", 16, minimum=2, maximum=200)
_database = parse_database_url(
    env.required_secret("DATABASE_URL", "it names the PostgreSQL database, postgresql://user:password@host:5432/name")
)
_database["OPTIONS"].setdefault("connect_timeout", "5")
# The web process has many threads and waits a lot: a pool (opencrane/wsgi.py turns it on). Every other process has one
# thread at a time: a connection that stays. Health checks cost a round trip and save a failed request or task whenever
# PostgreSQL was restarted.
_pooled = env.boolean("OPENCRANE_DATABASE_POOL", False)
if _pooled:
    _database["OPTIONS"]["pool"] = {"min_size": 1, "max_size": DATABASE_POOL_SIZE, "timeout": 5.0}
DATABASES: dict[str, Any] = {
    "default": _database
    | {
        "CONN_MAX_AGE": 0 if _pooled else 600,
        "CONN_HEALTH_CHECKS": True,
        "DISABLE_SERVER_SIDE_CURSORS": True,
    }
}

# --- Broker and Celery ---------------------------------------------------------------------------------------------

REDIS_URL = env.url("REDIS_URL", schemes=("redis", "rediss", "redis+socket", "unix"), is_secret=True)
if not REDIS_URL:
    raise env.ConfigurationError("REDIS_URL", "is not set; it names the broker, redis://:password@host:6379/0")
CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ALWAYS_EAGER = False
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "cluster.sync_object": {"queue": "sync"},
    "cluster.sweep": {"queue": "sync"},
    # What comes by the hundred has queues of its own, which workers serve in turn: nothing waits behind all of it.
    "mcpservers.probe_server": {"queue": "probes"},
    "skills.scan_bundle": {"queue": "scans"},
    "skills.push_bundle": {"queue": "pushes"},
}
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# State lives in PostgreSQL and a sweep finds what lags, so redelivery is only the slow path; the window is longer than
# the longest job so that nothing runs twice because of it.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 6 * 3600,
    "socket_timeout": 5.0,
    "socket_connect_timeout": 1.0,
    "socket_keepalive": True,
    "health_check_interval": 25,
}
CELERY_TASK_PUBLISH_RETRY = False
# Never: opencrane/celery.py closes connections that are broken or too old before each task.
CELERY_DB_REUSE_MAX = 10**9
CELERY_BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    "cluster.sweep": {"task": "cluster.sweep", "schedule": 5.0, "options": {"expires": 5}},
    "cluster.check_definitions": {"task": "cluster.check_definitions", "schedule": 30.0, "options": {"expires": 30}},
    "cluster.purge_expired": {"task": "cluster.purge_expired", "schedule": 300.0, "options": {"expires": 300}},
    "awareness.purge_events": {"task": "awareness.purge_events", "schedule": 1800.0, "options": {"expires": 1800}},
    "mcpservers.start_probes": {"task": "mcpservers.start_probes", "schedule": 15.0, "options": {"expires": 15}},
    "skills.start_scans": {"task": "skills.start_scans", "schedule": 15.0, "options": {"expires": 15}},
    "tenants.sweep_places": {"task": "tenants.sweep_places", "schedule": 10.0, "options": {"expires": 10}},
    "policies.push_due": {"task": "policies.push_due", "schedule": 10.0, "options": {"expires": 10}},
    "skills.push_due": {"task": "skills.push_due", "schedule": 10.0, "options": {"expires": 10}},
    "skills.sync_due": {"task": "skills.sync_due", "schedule": 60.0, "options": {"expires": 60}},
    "operations.seal_audit": {"task": "operations.seal_audit", "schedule": 30.0, "options": {"expires": 30}},
    "operations.check_audit": {"task": "operations.check_audit", "schedule": 300.0, "options": {"expires": 300}},
    "accounts.purge_expired": {"task": "accounts.purge_expired", "schedule": 3600.0, "options": {"expires": 3600}},
    "operations.sweep_jobs": {"task": "operations.sweep_jobs", "schedule": 10.0, "options": {"expires": 10}},
    "operations.sweep_deliveries": {
        "task": "operations.sweep_deliveries",
        "schedule": 10.0,
        "options": {"expires": 10},
    },
    "operations.sweep_dns": {"task": "operations.sweep_dns", "schedule": 10.0, "options": {"expires": 10}},
    "operations.sample_server": {"task": "operations.sample_server", "schedule": 60.0, "options": {"expires": 60}},
    "operations.purge_old": {"task": "operations.purge_old", "schedule": 3600.0, "options": {"expires": 3600}},
}
DRIFT_INTERVAL_SECONDS = env.integer("OPENCRANE_DRIFT_INTERVAL_SECONDS", 300, minimum=5)
CELERY_BEAT_SCHEDULE |= {
    "tenants.sweep_retained": {"task": "tenants.sweep_retained", "schedule": 600.0, "options": {"expires": 600}},
    "tenants.suspend_idle": {"task": "tenants.suspend_idle", "schedule": 60.0, "options": {"expires": 60}},
}
for _kind in ("Tenant", "AccessPolicy", "ClusterTenant"):
    CELERY_BEAT_SCHEDULE[f"operations.evaluate_drift.{_kind}"] = {
        "task": "operations.evaluate_drift",
        "args": (_kind,),
        "schedule": float(DRIFT_INTERVAL_SECONDS),
        "options": {"expires": 300},
    }

# --- Kubernetes ----------------------------------------------------------------------------------------------------

# KUBECONFIG is read by the Kubernetes client itself; in a pod the mounted ServiceAccount is used.
NAMESPACE = env.text("NAMESPACE")
CLUSTER_TIMEOUT_SECONDS = env.integer("OPENCRANE_CLUSTER_TIMEOUT_SECONDS", 10, minimum=1, maximum=60)
TENANT_CR_APPEARANCE_TIMEOUT_MS = env.integer("TENANT_CR_APPEARANCE_TIMEOUT_MS", 30_000, minimum=0, maximum=600_000)

# --- Operator: tenants' workloads ------------------------------------------------------------------------------------

OPENCLAW_IMAGE = env.text("OPENCRANE_OPENCLAW_IMAGE", "ghcr.io/openclaw/openclaw")
OPENCLAW_VERSION = env.text("OPENCRANE_OPENCLAW_VERSION", "latest")
OPENCLAW_PORT = env.integer("OPENCRANE_OPENCLAW_PORT", 18789, minimum=1, maximum=65535)
TENANT_STORAGE = env.text("OPENCRANE_TENANT_STORAGE", "5Gi")
TENANT_STORAGE_CLASS = env.text("OPENCRANE_TENANT_STORAGE_CLASS")
INGRESS_DOMAIN = env.text("INGRESS_DOMAIN").lower()
INGRESS_CLASS = env.text("OPENCRANE_INGRESS_CLASS")
INGRESS_TLS_SECRET = env.text("OPENCRANE_INGRESS_TLS_SECRET")
DEFAULT_TENANT_POLICY = env.text("DEFAULT_TENANT_POLICY")
# Where pods reach the control plane and LiteLLM, and the namespaces that restricted tenants may still speak to.
CONTROL_PLANE_URL = env.url("OPENCRANE_CONTROL_PLANE_URL")
TENANT_LITELLM_ENDPOINT = env.url("OPENCRANE_TENANT_LITELLM_ENDPOINT")
PLATFORM_NAMESPACES = env.words("OPENCRANE_PLATFORM_NAMESPACES", ["opencrane-system"])
NODE_POOL_LABEL = env.text("OPENCRANE_NODE_POOL_LABEL", "opencrane.io/node-pool")
OPERATOR_WORKERS = env.integer("OPENCRANE_OPERATOR_WORKERS", 4, minimum=1, maximum=32)
OPERATOR_METRICS_PORT = env.integer("OPENCRANE_OPERATOR_METRICS_PORT", 0, minimum=0, maximum=65535)
# 0 is off.
IDLE_SUSPEND_MINUTES = env.integer("IDLE_SUSPEND_MINUTES", 0, minimum=0, maximum=525_600)
DELETION_SECONDS = env.integer("OPENCRANE_DELETION_SECONDS", 300, minimum=1, maximum=86_400)

# --- Console -------------------------------------------------------------------------------------------------------

# Who may see and change what; the console knows no domain, so the role table comes by name.
CONSOLE_ALLOWS = "accounts.permissions.allows"
UNFOLD = {
    "SITE_TITLE": "OpenCrane",
    "SITE_HEADER": "OpenCrane",
    "SITE_SYMBOL": "precision_manufacturing",
    "SITE_URL": None,
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("console/favicon.svg")},
    ],
    "STYLES": [lambda request: static("console/console.css")],
    "SCRIPTS": [lambda request: static("console/console.js")],
    # A teal whose 600 carries white text, and is text on white, with a contrast above 4.5.
    "COLORS": {
        "primary": {
            "50": "oklch(98.4% .014 180.72)",
            "100": "oklch(95.3% .051 180.801)",
            "200": "oklch(91% .096 180.426)",
            "300": "oklch(85.5% .138 181.071)",
            "400": "oklch(77.7% .152 181.912)",
            "500": "oklch(70.4% .14 182.503)",
            "600": "oklch(51.1% .096 186.391)",
            "700": "oklch(43.7% .078 188.216)",
            "800": "oklch(38.6% .063 188.416)",
            "900": "oklch(32% .055 190)",
            "950": "oklch(27.7% .046 192.524)",
        },
    },
}

# --- API -----------------------------------------------------------------------------------------------------------

API_TOKEN = env.secret("OPENCRANE_API_TOKEN")
if API_TOKEN and len(API_TOKEN) < 16:
    raise env.ConfigurationError("OPENCRANE_API_TOKEN", "is shorter than 16 characters; use a long random one")
# Workloads that are no tenants' pods and may call /api/internal: the audience of their tokens by `namespace/name`.
INTERNAL_CALLERS = env.workloads("OPENCRANE_INTERNAL_CALLERS")
# Threads that one web process has for requests; at most half of them may wait for the cluster.
WEB_THREADS = env.integer("OPENCRANE_WEB_THREADS", 16, minimum=4, maximum=256)

# Hits in a minute, 0 for no limit; see opencrane/limits.py.
RATE_LIMIT = env.integer("OPENCRANE_RATE_LIMIT", 0, minimum=0, maximum=1_000_000)
RATE_LIMIT_BAD_CREDENTIALS = env.integer("OPENCRANE_RATE_LIMIT_BAD_CREDENTIALS", 60, minimum=0, maximum=1_000_000)
RATE_LIMIT_DEVICE = env.integer("OPENCRANE_RATE_LIMIT_DEVICE", 30, minimum=0, maximum=1_000_000)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "accounts.authentication.BearerAuthentication",
        "accounts.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.permissions.RolePermission"],
    "DEFAULT_PARSER_CLASSES": ["opencrane.api.bodies.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "opencrane.api.schema.ApiSchema",
    "EXCEPTION_HANDLER": "opencrane.api.errors.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "COERCE_DECIMAL_TO_STRING": False,
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "OpenCrane",
    "DESCRIPTION": "Control plane for AI agents on Kubernetes.",
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.0",
    "COMPONENT_SPLIT_REQUEST": True,
    "SERVE_INCLUDE_SCHEMA": False,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "PREPROCESSING_HOOKS": ["opencrane.api.schema.keep_api_paths"],
    "POSTPROCESSING_HOOKS": ["opencrane.api.schema.finish"],
}

# --- Sign-in -------------------------------------------------------------------------------------------------------

# OpenID Connect; names in the code are those of mozilla-django-oidc where it has one.
OIDC_ISSUER = env.text("OPENCRANE_OIDC_ISSUER")
OIDC_RP_CLIENT_ID = env.text("OPENCRANE_OIDC_CLIENT_ID")
OIDC_RP_CLIENT_SECRET = env.secret("OPENCRANE_OIDC_CLIENT_SECRET")
OIDC_GROUP_ROLES = env.pairs("OPENCRANE_OIDC_GROUP_ROLES", ROLES)
OIDC_EMAIL_ROLES = env.pairs("OPENCRANE_OIDC_EMAIL_ROLES", ROLES)
OIDC_ALLOWED_DOMAINS = frozenset(domain.lower() for domain in env.words("OPENCRANE_OIDC_ALLOWED_DOMAINS"))
OIDC_ALLOWED_EMAILS = frozenset(address.lower() for address in env.words("OPENCRANE_OIDC_ALLOWED_EMAILS"))
OIDC_GROUPS_CLAIM = env.text("OPENCRANE_OIDC_GROUPS_CLAIM", "groups")
OIDC_SCOPES = env.text("OPENCRANE_OIDC_SCOPES", "openid email profile")
OIDC_END_SESSION = env.boolean("OPENCRANE_OIDC_END_SESSION", False)
if env.together(
    {
        "OPENCRANE_OIDC_ISSUER": OIDC_ISSUER,
        "OPENCRANE_OIDC_CLIENT_ID": OIDC_RP_CLIENT_ID,
        "OPENCRANE_OIDC_CLIENT_SECRET": OIDC_RP_CLIENT_SECRET,
    },
    {
        "OPENCRANE_OIDC_GROUP_ROLES": OIDC_GROUP_ROLES,
        "OPENCRANE_OIDC_EMAIL_ROLES": OIDC_EMAIL_ROLES,
        "OPENCRANE_OIDC_ALLOWED_DOMAINS": OIDC_ALLOWED_DOMAINS,
        "OPENCRANE_OIDC_ALLOWED_EMAILS": OIDC_ALLOWED_EMAILS,
    },
):
    env.check_issuer("OPENCRANE_OIDC_ISSUER", OIDC_ISSUER, needs_tls=IS_PRODUCTION)
    if "openid" not in OIDC_SCOPES.split():
        raise env.ConfigurationError("OPENCRANE_OIDC_SCOPES", "has to contain openid")
    if OIDC_END_SESSION and not ENCRYPTION_KEYS:
        raise env.ConfigurationError("OPENCRANE_OIDC_END_SESSION", "needs OPENCRANE_ENCRYPTION_KEYS, which are not set")

# Wrong passwords (django-axes), by name and address together: nobody can lock another person out from elsewhere.
AXES_FAILURE_LIMIT = env.integer("OPENCRANE_LOGIN_FAILURES", 5, minimum=1, maximum=1000)
AXES_COOLOFF_TIME = timedelta(minutes=env.integer("OPENCRANE_LOGIN_LOCK_MINUTES", 15, minimum=1, maximum=10_080))
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_CLIENT_IP_CALLABLE = "accounts.lockout.address_of"
AXES_USERNAME_CALLABLE = "accounts.lockout.name_of"
AXES_LOCKOUT_CALLABLE = "accounts.lockout.refuse_login"
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_ENABLE_ADMIN = False
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False

# How long a token lives that a command line got by the device grant; 0 for ever.
DEVICE_TOKEN_DAYS = env.integer("OPENCRANE_DEVICE_TOKEN_DAYS", 90, minimum=0, maximum=3650)
# Whom pod tokens are for.
POD_AUDIENCE = env.text("OPENCLAW_POD_AUDIENCE", "openclaw-session")

# --- MCP servers ---------------------------------------------------------------------------------------------------

# Networks that probes may reach although they are loopback, link-local or a metadata service.
PROBE_ALLOW = env.networks("OPENCRANE_PROBE_ALLOW")
PROBE_INTERVAL_SECONDS = env.integer("OPENCRANE_PROBE_INTERVAL_SECONDS", 60, minimum=15, maximum=86_400)

# --- Skills --------------------------------------------------------------------------------------------------------

# What the scan of one bundle may use: of the clock and of the processor, and of address space.
SCAN_TIMEOUT_SECONDS = env.integer("OPENCRANE_SCAN_TIMEOUT_SECONDS", 120, minimum=5, maximum=600)
SCAN_MEMORY_MB = env.integer("OPENCRANE_SCAN_MEMORY_MB", 1024, minimum=256, maximum=16_384)

# --- Repair --------------------------------------------------------------------------------------------------------

REPAIR_WAIT_SECONDS = env.integer("OPENCRANE_REPAIR_WAIT_SECONDS", 10, minimum=0, maximum=60)

# --- Cluster tenants -----------------------------------------------------------------------------------------------

# Makes clusters for the tier dedicatedCluster; without it the tier is not available.
CLUSTER_PROVISIONER_URL = env.url("CLUSTER_PROVISIONER_URL")
CLUSTER_PROVISIONER_TOKEN = env.secret("CLUSTER_PROVISIONER_TOKEN")

# --- Platform DNS --------------------------------------------------------------------------------------------------

PLATFORM_DNS_ISSUER_KIND = env.choice("PLATFORM_DNS_ISSUER_KIND", "ClusterIssuer", ["ClusterIssuer", "Issuer"])
# Where cert-manager runs, and looks for the Secrets of a ClusterIssuer.
CERT_MANAGER_NAMESPACE = env.text("CERT_MANAGER_NAMESPACE", "cert-manager")

# --- Metrics -------------------------------------------------------------------------------------------------------

METRICS_DAYS = env.integer("OPENCRANE_METRICS_DAYS", 30, minimum=1, maximum=3650)
# The storage that is told about is that of the file system which holds this folder.
METRICS_PATH = env.text("OPENCRANE_METRICS_PATH", "/")
PROJECTION_DRIFT_ALERT_THRESHOLD = env.integer("OPENCRANE_PROJECTION_DRIFT_ALERT_THRESHOLD", 0, minimum=0)

# --- Webhooks ------------------------------------------------------------------------------------------------------

# Told when drift crosses its threshold, beside the webhooks that people make.
DRIFT_WEBHOOK_URL = env.url("OPENCRANE_DRIFT_WEBHOOK_URL", is_secret=True)
DRIFT_WEBHOOK_SECRET = env.secret("OPENCRANE_DRIFT_WEBHOOK_SECRET")
WEBHOOK_DAYS = env.integer("OPENCRANE_WEBHOOK_DAYS", 90, minimum=31, maximum=3650)

# --- Cognee --------------------------------------------------------------------------------------------------------

COGNEE_ENDPOINT = env.url("COGNEE_ENDPOINT")

# --- Money ---------------------------------------------------------------------------------------------------------

LITELLM_ENDPOINT = env.url("LITELLM_ENDPOINT")
LITELLM_MASTER_KEY = env.secret("LITELLM_MASTER_KEY")
if LITELLM_ENDPOINT and not LITELLM_MASTER_KEY:
    raise env.ConfigurationError("LITELLM_MASTER_KEY", "is not set, but LITELLM_ENDPOINT is")
# How long a tenant's old key goes on working once it has been rotated.
LITELLM_GRACE_SECONDS = env.integer("OPENCRANE_LITELLM_GRACE_SECONDS", 3600, minimum=0, maximum=604_800)
# How far each import of usage looks back beyond what it has read: calls are logged late, by when they began.
USAGE_OVERLAP_SECONDS = env.integer("OPENCRANE_USAGE_OVERLAP_SECONDS", 900, minimum=60, maximum=86_400)
CELERY_BEAT_SCHEDULE |= {
    "budgets.import_usage": {
        "task": "budgets.import_usage",
        "schedule": float(env.integer("OPENCRANE_USAGE_INTERVAL_SECONDS", 60, minimum=10, maximum=3600)),
        "options": {"expires": 60},
    },
    "budgets.raise_crossings": {"task": "budgets.raise_crossings", "schedule": 60.0, "options": {"expires": 60}},
    "budgets.sweep_keys": {"task": "budgets.sweep_keys", "schedule": 10.0, "options": {"expires": 10}},
    "budgets.check_keys": {"task": "budgets.check_keys", "schedule": 300.0, "options": {"expires": 300}},
    "budgets.sweep_provider_keys": {
        "task": "budgets.sweep_provider_keys",
        "schedule": 30.0,
        "options": {"expires": 30},
    },
}
# Where a provider lists its models, for providers (or gateways to them) that are not at their usual address.
PROVIDER_MODELS_URLS = env.named_urls("OPENCRANE_PROVIDER_MODELS_URLS")

# --- Effective contract --------------------------------------------------------------------------------------------

AWARENESS_PINNED_VERSION = env.text("AWARENESS_PINNED_VERSION", "1.0.0")
# How long reports of pods are kept, and with them their idempotency keys and the policy violations they count for.
PARTICIPATION_DAYS = env.integer("OPENCRANE_PARTICIPATION_DAYS", 30, minimum=1, maximum=3650)
MCP_GATEWAY_URL = env.url("OPENCRANE_MCP_GATEWAY_URL")

# --- Skill store ---------------------------------------------------------------------------------------------------

SKILL_OCI_REGISTRY_URL = env.url("SKILL_OCI_REGISTRY_URL")
if SKILL_OCI_REGISTRY_URL.count("/") > 2 or "@" in SKILL_OCI_REGISTRY_URL:
    raise env.ConfigurationError(
        "SKILL_OCI_REGISTRY_URL", "has to be the registry's origin alone, such as https://registry.example.com"
    )
SKILL_OCI_REPOSITORY = env.text("SKILL_OCI_REPOSITORY", "opencrane/skills")
if not re.fullmatch(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*", SKILL_OCI_REPOSITORY):
    raise env.ConfigurationError(
        "SKILL_OCI_REPOSITORY", f"is {SKILL_OCI_REPOSITORY!r}, but has to be a repository such as opencrane/skills"
    )
SKILL_OCI_USERNAME = env.secret("OPENCRANE_SKILL_OCI_USERNAME")
SKILL_OCI_PASSWORD = env.secret("OPENCRANE_SKILL_OCI_PASSWORD")
if bool(SKILL_OCI_USERNAME) != bool(SKILL_OCI_PASSWORD):
    raise env.ConfigurationError(
        "OPENCRANE_SKILL_OCI_USERNAME", "and OPENCRANE_SKILL_OCI_PASSWORD belong together; one of them is missing"
    )
SKILL_OCI_AUTH_ORIGINS = env.words("OPENCRANE_SKILL_OCI_AUTH_ORIGINS")
if not all(re.fullmatch(r"https?://[^/@]+", origin) for origin in SKILL_OCI_AUTH_ORIGINS):
    raise env.ConfigurationError(
        "OPENCRANE_SKILL_OCI_AUTH_ORIGINS", "has to be a list of origins, such as https://auth.example.com"
    )
SKILL_OCI_CA_FILE = env.text("OPENCRANE_SKILL_OCI_CA_FILE")
if SKILL_OCI_CA_FILE and not Path(SKILL_OCI_CA_FILE).is_file():
    raise env.ConfigurationError("OPENCRANE_SKILL_OCI_CA_FILE", f"names {SKILL_OCI_CA_FILE}, which is no file")
SKILL_OCI_TLS_VERIFY = env.boolean("OPENCRANE_SKILL_OCI_TLS_VERIFY", True)
SKILL_OCI_TIMEOUT_SECONDS = env.integer("OPENCRANE_SKILL_OCI_TIMEOUT_SECONDS", 20, minimum=1, maximum=300)

# --- Third-party sources -------------------------------------------------------------------------------------------

SOURCE_INTERVAL_SECONDS = env.integer("OPENCRANE_SOURCE_INTERVAL_SECONDS", 3600, minimum=60, maximum=604_800)
