# One image for every process of OpenCrane: the command decides which one a container is (see docker-compose.yml).
#
#   docker build --tag opencrane .
#
# Runs as user 10001 without a shell account, needs no writable file system beyond /tmp, and holds no compiler and no
# secret: all settings come from the environment (docs/configuration.md).

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
COPY requirements.txt ./
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --only-binary=:all: --requirement requirements.txt
COPY manage.py ./
COPY opencrane opencrane/
COPY cluster cluster/
COPY accounts accounts/
COPY tenants tenants/
COPY policies policies/
COPY mcpservers mcpservers/
COPY skills skills/
COPY budgets budgets/
COPY awareness awareness/
COPY operations operations/
COPY workloads workloads/
COPY templates templates/
COPY deploy/crds deploy/crds/
# The settings want values for what a process cannot do without; nothing is connected to and nothing is kept.
RUN DATABASE_URL=postgresql://build@localhost/build REDIS_URL=redis://localhost OPENCRANE_SECRET_KEY=build \
    /opt/venv/bin/python manage.py collectstatic --noinput \
    && /opt/venv/bin/python -m compileall -q .

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="OpenCrane" \
      org.opencontainers.image.description="Self-hosted control plane for AI agents on Kubernetes" \
      org.opencontainers.image.licenses="AGPL-3.0-or-later"
# granian's allocator (jemalloc) gives memory back after a second instead of ten.
ENV PATH="/opt/venv/bin:$PATH" \
    _RJEM_MALLOC_CONF=background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0 \
    DJANGO_SETTINGS_MODULE=opencrane.settings \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Workers read third-party sources with git.
RUN apt-get -qq update \
    && apt-get -qq install --yes --no-install-recommends git ca-certificates >/dev/null \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 opencrane \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin opencrane
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
USER 10001:10001
EXPOSE 8000
# For the web process, which is also the default; compose and Kubernetes have checks of their own for the others.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["granian", "--interface", "wsgi", "--host", "0.0.0.0", "--port", "8000", "--workers", "1", "--blocking-threads", "16", "--no-ws", "--log-level", "warning", "opencrane.wsgi:application"]
