"""`manage.py create_token`: an access token for whoever has a shell on the server and no other way in."""

import datetime
import getpass
import re
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from accounts.models import Role
from accounts.services import issue_token
from opencrane.actor import Actor
from opencrane.errors import DomainError

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def _duration(text: str) -> datetime.timedelta:
    match = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if match is None or int(match[1]) == 0:
        raise ArgumentTypeError("has to look like 30m, 12h or 90d")
    return datetime.timedelta(**{_UNITS[match[2]]: int(match[1])})


class Command(BaseCommand):
    """Prints the token, and nothing else, on standard output."""

    help = "Issue an access token and print it; it cannot be shown again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--name", required=True, help="A label.")
        parser.add_argument("--role", required=True, choices=Role.values)
        parser.add_argument("--owner", default="", help="A label: whom it is for.")
        parser.add_argument("--expires-in", type=_duration, help="For example 30m, 12h or 90d; never, if absent.")

    def handle(self, *args: Any, **options: Any) -> None:
        lifetime: datetime.timedelta | None = options["expires_in"]
        try:
            issued = issue_token(
                name=options["name"],
                role=Role(options["role"]),
                owner=options["owner"],
                expires_at=timezone.now() + lifetime if lifetime else None,
                creator_role=Role.ADMIN,
                actor=Actor(kind="system", name=f"command line ({_login()})"),
            )
        except DomainError as exc:
            raise CommandError(exc.message) from exc
        self.stdout.write(issued.secret)


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user has no name
        return "unknown"
