"""Object pages with what every object leaves here: its audit trail, and how far the cluster follows it."""

from abc import abstractmethod
from typing import Any, ClassVar

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse

from cluster.kinds import Kind, RowT
from opencrane.console.listing import page_of
from opencrane.console.objects import ObjectPage, Thing
from opencrane.console.values import to_yaml
from opencrane.errors import NotFoundError
from operations import audit_reading, selectors
from operations.audit_pages import AuditFilter

AUDIT_ROWS = 25


class AuditedPage(ObjectPage[Thing]):
    """An object page with the tab `audit`."""

    needs = {"audit": "audit"}

    @abstractmethod
    def audited(self, thing: Thing) -> AuditFilter:
        """What picks the object's entries."""

    def audit_tab(self, thing: Thing) -> dict[str, Any]:
        found = audit_reading.read_page(self.audited(thing), self.request, rows=AUDIT_ROWS)
        return {"entries": found.entries, "listing": page_of(self.request, found.entries, found.next_cursor)}


class SyncedPage(AuditedPage[RowT]):
    """The page of a row that the cluster follows, with the tabs `spec` and `sync`.

    Attributes:
        kind: its kind.
        list_page: name of the page with all of them.
    """

    kind: ClassVar[Kind[Any]]
    list_page: ClassVar[str]

    def get(self, request: HttpRequest, **path: Any) -> HttpResponseBase:
        try:
            return super().get(request, **path)
        except NotFoundError:
            # Whoever watched it being deleted polls the header until it is gone.
            if request.GET.get("part") != "header":
                raise
        noun = f"{self.noun[0].upper()}{self.noun[1:]}"
        messages.success(request, f"{noun} {path['name']} is gone from the cluster and from here.")
        return HttpResponse(headers={"HX-Redirect": reverse(self.list_page)})

    def state_of(self, row: RowT) -> str:
        """The word of the sync chip."""
        return row.shown_state(is_drifted=selectors.is_drifted(self.kind.name, row.name))

    def spec_tab(self, row: RowT) -> dict[str, Any]:
        spec = self.kind.spec(row)
        return {"fields": [(field, spec.get(field)) for field in self.kind.fields], "yaml": self.yaml(row)}

    def sync_tab(self, row: RowT) -> dict[str, Any]:
        return {"revisions": selectors.unconfirmed_writes(row.pk), "outcomes": selectors.recent_outcomes(row.pk)}

    def yaml(self, row: RowT) -> str:
        """The resource as one would write it."""
        resource = self.kind.resource
        head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": row.name}}
        return to_yaml({**head, "spec": self.kind.spec(row)})
