"""The operator process: makes tenants run."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cluster.client import cluster_client
from cluster.errors import KubeError
from workloads import running


class Command(BaseCommand):
    help = "Turn tenants and policies of the cluster into Deployments, Services and the like. Runs until told to stop."
    # It speaks to the cluster alone and has to work while the database is away.
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        try:
            cluster_client()
        except KubeError as exc:
            raise CommandError(exc.message) from exc
        if not running.run(stop):
            raise CommandError("The lease was lost.")
