"""Install or update the custom resource definitions."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cluster import crds
from cluster.errors import KubeError


class Command(BaseCommand):
    help = "Apply deploy/crds to the cluster and wait until they are served. Repeatable."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            names = crds.install()
        except KubeError as exc:
            raise CommandError(f"The custom resource definitions could not be installed: {exc.message}") from exc
        self.stdout.write(f"installed {', '.join(names)}")
