"""Prints what the drift webhook of the settings is signed with, for its receiver."""

from typing import Any

from django.core.management.base import BaseCommand

from operations.models import Webhook
from operations.services.webhooks import DRIFT_WEBHOOK, secret_of


class Command(BaseCommand):
    help = f"Prints the secret that requests to {DRIFT_WEBHOOK} are signed with."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(secret_of(Webhook(built_in=DRIFT_WEBHOOK)))
