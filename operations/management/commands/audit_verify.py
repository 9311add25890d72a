"""`manage.py audit_verify`: check the whole audit trail against its seals."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from operations import sealing
from operations.models import AuditSeal


class Command(BaseCommand):
    """Status 1, and the first entry that does not fit, when the trail or its seals were tampered with."""

    help = "Check every sealed entry of the audit trail."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--expect",
            metavar="SEAL:HASH",
            default="",
            help="A seal as the log has it (`audit sealed`): also finds out whether all seals were made anew.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        seals = rows = 0
        last: AuditSeal | None = None
        for seal, broken in sealing.check():
            if broken is not None:
                where = f"entry {broken.entry}" if broken.entry is not None else f"seal {broken.seal}"
                raise CommandError(f"The audit trail is broken, first at {where}: {broken.why}")
            seals, rows, last = seals + 1, rows + seal.rows, seal
            if seals % 100 == 0:
                self.stdout.write(f"{rows} entries in {seals} seals so far")
        if options["expect"]:
            _expect(options["expect"])
        self.stdout.write(f"{rows} entries in {seals} seals are as they were sealed.")
        if last is not None:
            self.stdout.write(f"The last seal is {last.pk}:{last.hash}")


def _expect(text: str) -> None:
    number, _, wanted = text.partition(":")
    found = AuditSeal.objects.filter(pk=number).values_list("hash", flat=True).first() if number.isdigit() else None
    if found != wanted.strip().lower():
        told = f"has the hash {found}" if found else "does not exist"
        raise CommandError(f"Seal {number} {told}: the seals were made anew, or this is another database.")
