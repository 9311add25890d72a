"""`manage.py rotate_encryption`: after a new first key, seal every stored secret with it."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from opencrane.encryption import sealing_prefix
from opencrane.errors import DependencyNotConfiguredError
from opencrane.rotation import BATCH_ROWS, rotate


class Command(BaseCommand):
    """Safe at any time, and to start again after it was cut short. Status 1 when some value could not be opened."""

    help = "Seal every stored secret with the first key of OPENCRANE_ENCRYPTION_KEYS."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--batch", type=int, default=BATCH_ROWS, help="Rows read at once.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["batch"] < 1:
            raise CommandError("--batch has to be at least 1")
        try:
            key = sealing_prefix().split(".")[1]
            result = rotate(self._tell, batch_rows=options["batch"])
        except DependencyNotConfiguredError as exc:
            raise CommandError(f"{exc.message} {exc.detail}") from exc
        for line in result.failed:
            self.stderr.write(line)
        self.stdout.write(f"Sealed {result.sealed} values with key {key}.")
        if result.failed:
            raise CommandError(f"{len(result.failed)} values cannot be opened with the keys at hand.")
        self.stdout.write("Every stored secret is sealed with this key: older keys may be removed.")

    def _tell(self, column: str, done: int, total: int) -> None:
        self.stdout.write(f"{column}: {done} of {total}")
