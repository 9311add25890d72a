"""`manage.py bootstrap`: the first administrator and the first token, so that nothing starts out open."""

import json
import os
import secrets
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from accounts.services import bootstrap
from opencrane import env


class Command(BaseCommand):
    """Safe to run at every start and by several processes at once: what exists is left alone."""

    help = "Make the first administrator and, without OPENCRANE_API_TOKEN, the first access token."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--admin-user", default="admin", help="Name of the administrator, if one has to be made.")
        parser.add_argument("--credentials", type=Path, help="JSON file (mode 0600) that keeps what was generated.")

    def handle(self, *args: Any, **options: Any) -> None:
        given = env.secret("OPENCRANE_BOOTSTRAP_ADMIN_PASSWORD")
        password = given or secrets.token_urlsafe(18)
        kept: dict[str, str] = {}
        if bootstrap.make_first_admin(username=options["admin_user"], password=password):
            self.stdout.write(f"Made the administrator {options['admin_user']}.")
            if not given:
                self.stdout.write(f"Password, shown only now: {password}")
                kept |= {"adminUser": options["admin_user"], "adminPassword": password}
        if not settings.API_TOKEN:
            token = bootstrap.issue_first_token()
            if token:
                self.stdout.write(f"Access token with role admin, shown only now: {token}")
                kept["token"] = token
        if kept and options["credentials"]:
            _keep(options["credentials"], kept)


def _keep(file: Path, values: dict[str, str]) -> None:
    """Add values to a JSON file that only its owner may read; replaced in one step."""
    present: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(json.dumps(present | values, indent=2) + "\n")
    draft.replace(file)
