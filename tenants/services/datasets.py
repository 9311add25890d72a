"""Which datasets a tenant may read; Cognee is told first."""

from typing import Any
from urllib.parse import quote

import httpx
from django.conf import settings
from django.db import transaction

from cluster.intent import locked_row, require_writable
from cluster.locks import object_lock
from opencrane.actor import Actor
from opencrane.errors import TimedOutError
from tenants import selectors
from tenants.errors import CogneeError, TenantNotFoundError
from tenants.models import DatasetMembership
from tenants.services.kind import TENANT

COGNEE_TIMEOUT_SECONDS = 5.0
Datasets = dict[str, list[str]]


def set_datasets(*, name: str, datasets: Datasets, actor: Actor) -> Datasets:
    """Replace a tenant's four lists and return them sorted.

    Two replacements of the same tenant run one after the other, so that Cognee and the rows end up the same.

    Args:
        datasets: `org` (only `default`), `team`, `project`, `personal`, checked by the caller.

    Raises:
        TenantNotFoundError, ConflictError (being deleted).
        CogneeError: Cognee refused, failed or did not answer within 5 s; nothing was changed here.
        TimedOutError: another replacement of the same tenant takes too long.
    """
    wanted = {scope: sorted(set(datasets[scope])) for scope in ("team", "project", "personal")}
    tenant = selectors.tenant_named(name)
    require_writable(tenant)
    with object_lock("datasets", str(tenant.pk), wait_seconds=COGNEE_TIMEOUT_SECONDS * 2) as held:
        if not held:
            raise TimedOutError(
                f"Another change of the datasets of {name} is under way.", detail="Nothing was changed."
            )
        _tell_cognee(name, {"org": selectors.ORG_DATASETS, **wanted})
        return _store(name, wanted, actor)


@transaction.atomic(durable=True)
def _store(name: str, wanted: Datasets, actor: Actor) -> Datasets:
    tenant = locked_row(TENANT, name)
    if tenant is None:
        raise TenantNotFoundError(f"There is no tenant named {name}.")
    require_writable(tenant)
    before = selectors.datasets_of(tenant.pk)
    after = {"org": list(selectors.ORG_DATASETS), **wanted}
    if before == after:
        return after
    DatasetMembership.objects.filter(tenant=tenant).delete()
    DatasetMembership.objects.bulk_create(
        DatasetMembership(tenant=tenant, scope=scope, dataset=dataset)
        for scope, names in wanted.items()
        for dataset in names
    )
    TENANT.record(
        tenant, "datasets_changed", f"Changed the datasets of tenant {name}.", before=before, after=after, actor=actor
    )
    return after


def _tell_cognee(name: str, datasets: Datasets) -> None:
    if not settings.COGNEE_ENDPOINT:
        return
    subjects: list[dict[str, Any]] = [
        {"scope": scope, "subject": subject} for scope, names in datasets.items() for subject in names
    ]
    try:
        response = httpx.put(
            f"{settings.COGNEE_ENDPOINT}/v1/permissions/tenants/{quote(name, safe='')}/subjects",
            json={"subjects": subjects},
            headers={"x-cognee-tenant-id": name, "x-opencrane-sync-source": "control-plane"},
            timeout=COGNEE_TIMEOUT_SECONDS,
        )
        response.raise_for_status()
    except httpx.HTTPStatusError as exc:
        raise CogneeError(detail=f"Cognee answered {exc.response.status_code}.") from exc
    except httpx.HTTPError as exc:
        raise CogneeError(detail=f"Cognee did not answer: {type(exc).__name__}.") from exc
