"""The projector process: follows the cluster's watch streams."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from cluster import projector


class Command(BaseCommand):
    help = "Follow the cluster's watch streams and copy status into the database. Runs until it is told to stop."

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        projector.run(stop)
