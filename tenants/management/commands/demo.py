"""`manage.py demo`: a small invented company, so that there is something to look at."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cluster import reconcile
from cluster.errors import KubeError
from opencrane.actor import Actor
from opencrane.errors import DomainError
from tenants.errors import RetainedDataError, TenantExistsError
from tenants.management import company
from tenants.models import Tenant
from tenants.services import datasets, lifecycle
from tenants.services.kind import TENANT

DEMO = Actor(kind="system", name="demo")
# first name, last name, team
PEOPLE = (
    ("Ada", "Lindgren", "research"),
    ("Bruno", "Costa", "sales"),
    ("Chiara", "Moretti", "sales"),
    ("Daniel", "Okafor", "engineering"),
    ("Elif", "Yilmaz", "engineering"),
    ("Felix", "Brandt", "finance"),
    ("Grace", "Mwangi", "support"),
    ("Hugo", "Lefevre", "sales"),
    ("Ines", "Marin", "research"),
    ("Jonas", "Vogel", "engineering"),
    ("Keiko", "Tanaka", "research"),
    ("Liam", "Byrne", "support"),
    ("Mina", "Park", "engineering"),
    ("Noor", "Haddad", "finance"),
    ("Oskar", "Nowak", "engineering"),
    ("Priya", "Raman", "support"),
    ("Quentin", "Dubois", "legal"),
    ("Rosa", "Delgado", "sales"),
    ("Sven", "Eriksen", "engineering"),
    ("Tara", "Whitfield", "legal"),
    ("Umar", "Siddiqui", "research"),
    ("Vera", "Kovacs", "finance"),
    ("Willem", "de Boer", "support"),
    ("Yara", "Santos", "sales"),
)
BUDGETS = {"engineering": 250, "research": 400, "sales": 80, "support": 60, "finance": 120, "legal": 150}
RESOURCES = {
    "engineering": {"cpu": "2", "memory": "4Gi"},
    "research": {"cpu": "4", "memory": "8Gi"},
    "sales": {"cpu": "500m", "memory": "1Gi"},
}
WAVES = {"engineering": "project", "sales": "department", "support": "department"}
EARLY = {"ada-lindgren", "mina-park"}
SKILLS = {"sales": ["crm-notes", "meeting-brief"], "support": ["ticket-triage"], "legal": ["contract-review"]}
# Images of this name cannot be pulled in the development cluster: something has to go wrong, too.
BROKEN = {"quentin-dubois": "fail:latest"}
SUSPENDED = {"hugo-lefevre", "umar-siddiqui", "willem-de-boer"}


class Command(BaseCommand):
    """Safe to run again: what exists is left alone."""

    help = (
        "Fill in a small demo company: invented people with example.com addresses, in teams, with policies, groups, MCP"
        " servers, skills, a rollout and two months of spending. For trying things out only. What exists is left alone."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--wait", type=float, default=20.0, help="Seconds to give the cluster and scans; 0 leaves it to workers."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            company.make_before_tenants(DEMO)
            made = sum(_make(*person) for person in PEOPLE)
            waiting = _follow(options["wait"])
            company.make_after_tenants([_name(first, last) for first, last, _ in PEOPLE], DEMO, options["wait"])
        except DomainError as exc:
            raise CommandError(f"{exc.message} {exc.detail}") from exc
        self.stdout.write(f"The demo company has {len(PEOPLE)} tenants; {made} are new.")
        if waiting:
            self.stdout.write(f"{waiting} wait for the cluster; the workers bring it along.")


def _name(first: str, last: str) -> str:
    return f"{first}-{last}".lower().replace(" ", "-")


def _make(first: str, last: str, team: str) -> bool:
    """Make a tenant; False when it is there already."""
    name = _name(first, last)
    try:
        lifecycle.create_tenant(name=name, values=_spec(name, first, last, team), actor=DEMO)
    except (TenantExistsError, RetainedDataError):
        # Somebody has deleted it, and decides on what it left.
        return False
    datasets.set_datasets(name=name, datasets=_datasets(name, team), actor=DEMO)
    return True


def _spec(name: str, first: str, last: str, team: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "displayName": f"{first} {last}",
        "email": f"{first}.{last}@example.com".lower().replace(" ", ""),
        "team": team,
        "monthlyBudgetUsd": BUDGETS[team],
        "resources": RESOURCES.get(team),
        "skillAllowlist": SKILLS.get(team),
        "suspended": name in SUSPENDED,
        "openclawImage": BROKEN.get(name),
        "awarenessWave": "personal" if name in EARLY else WAVES.get(team),
        "clusterTenantRef": company.CLUSTER_TENANT if team == "research" else None,
    }
    if team == "engineering":
        spec["configOverrides"] = {"model": {"default": "large", "temperature": 0.2}, "tools": {"shell": True}}
    if team == "finance":
        spec["mcpPolicy"] = {"deny": ["web-search"]}
    return {field: value for field, value in spec.items() if value is not None}


def _datasets(name: str, team: str) -> dict[str, list[str]]:
    projects = ["crane-launch"] if team in {"engineering", "sales", "research"} else []
    return {"org": ["default"], "team": [f"{team}-handbook"], "project": projects, "personal": [f"{name}-notes"]}


def _follow(seconds: float) -> int:
    """Bring the cluster along from here, since no worker may be running yet; returns how many still wait."""
    deadline = time.monotonic() + seconds
    lagging = [tenant for tenant in Tenant.objects.all()[:1000] if tenant.in_flight]
    for tenant in lagging:
        if time.monotonic() >= deadline:
            break
        try:
            reconcile.sync_object(TENANT.name, tenant.pk)
        except KubeError:
            break
    ids = [tenant.pk for tenant in lagging]
    return sum(tenant.in_flight for tenant in Tenant.objects.filter(pk__in=ids))
