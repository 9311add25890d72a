"""Platform DNS: the issuer as the cluster has it, with cert-manager's conditions, and the form that makes it."""

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.dateparse import parse_datetime

from opencrane.console.forms import ApiForm, FormField, Section
from opencrane.console.pages import ConsolePage
from opencrane.console.values import pretty_json
from opencrane.errors import DomainError, TimedOutError, UpstreamError
from operations import dns, selectors
from operations.api.platform_dns import PlatformDnsBodySerializer
from operations.services import platform_dns

FIELDS = (
    FormField(
        "provider", "Provider", help="cloudflare or digitalocean with a token; any other with its config.",
        is_required=True,
    ),
    FormField("zone", "DNS zone", help="Challenges are answered here, such as agents.example.com.", is_required=True),
    FormField("email", "E-mail", "email", "Where the certificate authority writes to.", is_required=True),
    FormField("server", "ACME server", help=f"Blank: {dns.DEFAULT_SERVER}"),
    FormField("issuerName", "Issuer", help=f"Blank: {dns.DEFAULT_ISSUER}"),
    FormField(
        "apiToken", "API token", "secret", "For cloudflare and digitalocean. Blank: the one that is there stays."
    ),
    FormField("solverConfig", "Solver config", "object", "For other providers, JSON or YAML, as cert-manager has it."),
)  # fmt: skip


class DnsForm(ApiForm):
    sections = (Section("", FIELDS),)


CONDITIONS = {
    "True": ("ok", "check_circle"),
    "False": ("bad", "error"),
}


class DnsPage(ConsolePage):
    resource = "platform-dns"
    title = "Platform DNS"
    template_name = "operations/platform_dns.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._page(None)

    def post(self, request: HttpRequest) -> HttpResponse:
        form = DnsForm.posted(request)
        values = form.checked(PlatformDnsBodySerializer, form.body())
        if values is None:
            return self._page(form, 400)
        try:
            done = platform_dns.configure_dns(values=values, actor=self.actor)
        except TimedOutError as exc:
            messages.warning(request, f"{exc.message} {exc.detail}")
        except DomainError as exc:
            return self._page(form.refuse(exc, request), exc.http_status)
        else:
            messages.success(request, f"{done['issuerKind']} {done['issuerName']} is {done['status']}.")
        name = values.get("issuer_name")
        return HttpResponseRedirect(reverse("admin:platform_dns") + (f"?issuerName={name}" if name else ""))

    def _page(self, form: ApiForm | None, status: int = 200) -> HttpResponse:
        name = self.request.GET.get("issuerName", "")[:240]
        problem, issuer = "", None
        try:
            issuer = platform_dns.platform_dns(name)
        except UpstreamError as exc:
            problem = f"{exc.message} {exc.detail}"
        request = None
        if issuer is not None:
            request = selectors.dns_request(issuer["issuerKind"], issuer["issuerName"])
            for each in issuer["conditions"]:
                tone, icon = CONDITIONS.get(each["status"], ("muted", "help"))
                each["chip"] = (tone, icon, f"{each['type']}: {each['status']}")
                each["since"] = parse_datetime(each.get("lastTransitionTime") or "")
        return self.render(
            {
                "form": form or DnsForm(filled(issuer)),
                "submit": "Save and apply",
                "issuer": issuer,
                "problem": problem,
                "last": request,
                "is_waiting": request is not None and request.observed_generation < request.generation,
            },
            status=status,
        )


def filled(issuer: dict[str, Any] | None) -> dict[str, Any]:
    """The form as the issuer in the cluster fills it in; the token is nowhere to be read."""
    if issuer is None or not issuer["configured"]:
        return {}
    raw = {name: issuer[name] or "" for name in ("provider", "zone", "email", "server", "issuerName")}
    return raw | {"solverConfig": pretty_json(issuer["solverConfig"]) if issuer["solverConfig"] else ""}


def register() -> None:
    """Called by `operations.admin`."""
    site: Any = admin.site
    site.add_page("platform-dns/", DnsPage.as_view(), "platform_dns")
    site.add_navigation(
        "Operations", "Platform DNS", "language", "admin:platform_dns", resource="platform-dns", position=48
    )
