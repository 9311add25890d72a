"""What a tenant's pod may read of itself, under /api/internal."""

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema

from accounts.pods import InternalViewSet
from opencrane.api.responses import is_not_modified, json_response
from opencrane.api.viewsets import ApiRequest
from opencrane.errors import ForbiddenError
from tenants import selectors
from tenants.contract import effective_contract


class InternalContractViewSet(InternalViewSet):
    """The effective contract of the tenant whose pod asks."""

    @extend_schema(exclude=True)
    def show(self, request: ApiRequest, tenant: str) -> HttpResponse:
        """As the API gives it; any name but the pod's own is refused alike, whether there is such a tenant or not."""
        if tenant != self.caller.name:
            raise ForbiddenError("A pod may read the contract of its own tenant only.")
        contract = effective_contract(selectors.tenant_named(tenant))
        headers = {"ETag": f'"{contract["contractId"]}"'}
        if is_not_modified(request, headers["ETag"]):
            return HttpResponse(status=304, headers=headers)
        return json_response(contract, headers=headers)
