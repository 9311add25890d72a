"""OpenCrane: a self-hosted control plane for AI agents on Kubernetes."""

from opencrane.celery import app as celery_app

__all__ = ["celery_app"]
