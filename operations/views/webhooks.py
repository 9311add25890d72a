"""Webhooks: who is told what, how telling them went, and sending it again."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.dateparse import parse_datetime

from opencrane.api.keyset import Keyset
from opencrane.api.params import parse_uuid
from opencrane.console.editing import EditPage, NewPage, Precondition
from opencrane.console.forms import FormField, ObjectForm, Section
from opencrane.console.listing import Filter, FilterBar, listing
from opencrane.console.lists import ListPage
from opencrane.console.objects import ObjectActions
from opencrane.console.values import pretty_json
from opencrane.console.writes import same_generation
from opencrane.errors import InvalidError
from operations import selectors, signing
from operations.api.webhooks import CreateWebhookSerializer, UpdateWebhookSerializer
from operations.audit_pages import AuditFilter
from operations.models import Delivery, Webhook
from operations.services import webhooks
from operations.services.webhooks import EVENTS, TEST_EVENT
from operations.views.objects import AuditedPage

NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="webhooks in the console")
DELIVERIES_NEWEST = Keyset([("created_at", "desc"), ("id", "desc")], name="deliveries in the console")
DELIVERY_ROWS = 30
STATUS = {
    "pending": ("info", "hourglass_top", "On its way"),
    "delivered": ("ok", "check_circle", "Delivered"),
    "failed": ("bad", "error", "Failed"),
}
FIELDS = (
    FormField("name", "Name", is_required=True),
    FormField("url", "Address", help="http or https, without a password: requests are signed.", is_required=True),
    FormField("events", "What it is told", "checks", options=tuple(sorted(EVENTS.items()))),
    FormField("description", "Description"),
    FormField(
        "secret",
        "Signing secret",
        "secret",
        f"At least {signing.SECRET_MIN} characters. Blank: one is made and shown once, or the present one stays.",
    ),
    FormField("enabled", "Enabled", "flag"),
)


def health_of(webhook: Webhook) -> tuple[str, str, str]:
    """The chip of a webhook: whether it is told anything, and whether its receiver answers."""
    if not webhook.enabled:
        return "muted", "pause_circle", "Disabled"
    if webhook.failures:
        return "bad", "error", "Receiver in trouble"
    return "ok", "check_circle", "Enabled"


class WebhookForm(ObjectForm[Webhook]):
    sections = (Section("", FIELDS),)
    creates, updates = CreateWebhookSerializer, UpdateWebhookSerializer

    @classmethod
    def of(cls, webhook: Webhook) -> "WebhookForm":
        return cls({name: getattr(webhook, name) for name in ("name", "url", "events", "description", "enabled")})


class WebhookList(ListPage):
    resource = "webhooks"
    title = "Webhooks"
    template_name = "operations/webhooks.html"
    noun = "webhook"
    search = "Search name or address"
    keyset = NEWEST
    new_page = "admin:webhook_new"

    def filters(self) -> list[Filter]:
        return [Filter("event", "Told about", "choice", [(event, event) for event in sorted(EVENTS)])]

    def found(self, filters: dict[str, str]) -> QuerySet[Webhook]:
        return selectors.webhooks_matching(filters)

    def rows(self, objects: list[Any]) -> list[dict[str, Any]]:
        return [{"health": health_of(webhook)} for webhook in objects]


class WebhookPage(AuditedPage[Webhook]):
    """A webhook with its deliveries. The pages that make a secret show it here, the one time that it is shown."""

    resource = "webhooks"
    template_name = "operations/webhook.html"
    noun = "webhook"
    url_name = "webhook"
    header_template = "operations/_webhook_header.html"
    tab_templates = "operations/webhook_"
    tabs = {"deliveries": "Deliveries", "audit": "Audit"}

    def find(self, webhook_id: UUID) -> Webhook:
        return selectors.webhook_with_counts(webhook_id)

    def header(self, webhook: Webhook) -> dict[str, Any]:
        return {
            "title": webhook.name,
            "generation": webhook.generation,
            "webhook": webhook,
            "health": health_of(webhook),
            "events": [(event, EVENTS.get(event, "")) for event in webhook.events],
        }

    def deliveries_tab(self, webhook: Webhook) -> dict[str, Any]:
        bar = FilterBar(
            self.request,
            [
                Filter("status", "Result", "choice", [(key, words[2]) for key, words in STATUS.items()]),
                Filter("event", "Event", "choice", [(event, event) for event in (*sorted(EVENTS), TEST_EVENT)]),
            ],
            has_search=False,
        )
        wanted = bar.values()
        found = selectors.deliveries_of(webhook, status=wanted.get("status", ""), event=wanted.get("event", ""))
        page = listing(self.request, DELIVERIES_NEWEST, found, rows=DELIVERY_ROWS)
        rows = [
            {
                "delivery": delivery,
                "status": STATUS[delivery.status],
                "payload": pretty_json(delivery.event.payload),
                "log": [{**attempt, "at": parse_datetime(attempt["at"])} for attempt in delivery.log],
                "is_pending": delivery.status == Delivery.Status.PENDING,
                "again": max(delivery.not_before, webhook.not_before),
            }
            for delivery in page.rows
        ]
        return {"bar": bar, "listing": page, "rows": rows}

    def audited(self, webhook: Webhook) -> AuditFilter:
        return AuditFilter(resource=f"Webhook/{webhook.name}")

    def reveal(self, secret: str) -> HttpResponse:
        """The page with a secret; no cache keeps it."""
        webhook = self.find(**self.kwargs)
        response = self.show(webhook, "deliveries", self.deliveries_tab(webhook) | {"secret": secret})
        response["Cache-Control"] = "no-store"
        return response


class NewWebhook(NewPage):
    resource = "webhooks"
    title = "New webhook"
    form = WebhookForm
    submit = "Create webhook"
    list_page = "admin:webhooks"

    def blank(self) -> WebhookForm:
        return WebhookForm({"enabled": True, "events": []}, is_new=True)

    def create(self, values: dict[str, Any]) -> str | HttpResponse:
        webhook, secret = webhooks.create_webhook(values=values, actor=self.actor)
        if secret:
            page = WebhookPage()
            page.setup(self.request, webhook_id=webhook.pk)
            return page.reveal(secret)
        messages.success(self.request, f"Webhook {webhook.name} is saved.")
        return WebhookPage.url(webhook.pk)


class EditWebhook(EditPage[Webhook]):
    resource = "webhooks"
    page = WebhookPage
    form = WebhookForm
    review_template = ""

    def save(self, webhook: Webhook, changes: dict[str, Any], precondition: Precondition) -> None:
        webhooks.update_webhook(webhook_id=webhook.pk, changes=changes, precondition=precondition, actor=self.actor)
        messages.success(self.request, f"Webhook {changes.get('name', webhook.name)} is saved.")


class RenewSecret(WebhookPage):
    """A POST whose answer shows the new secret, and therefore no redirect."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        return self.reveal(webhooks.renew_secret(webhook_id=webhook_id, actor=self.actor))


class WebhookActions(ObjectActions):
    resource = "webhooks"
    page = WebhookPage

    def do_test(self, webhook_id: UUID) -> None:
        webhooks.send_test(webhook_id=webhook_id, actor=self.actor)
        messages.info(self.request, "A test event is on its way; the list shows what becomes of it.")

    def do_resend(self, webhook_id: UUID) -> None:
        delivery_id = parse_uuid(self.request.POST.get("delivery", ""))
        if delivery_id is None:
            raise InvalidError("There is no such delivery.")
        webhooks.resend_delivery(webhook_id=webhook_id, delivery_id=delivery_id, actor=self.actor)
        messages.info(self.request, "It is on its way again.")

    def do_replay(self, webhook_id: UUID) -> None:
        count = webhooks.replay(webhook_id=webhook_id, only_failed=True, actor=self.actor)
        messages.info(self.request, f"On their way again, of what had failed: {count}.")

    def do_delete(self, webhook_id: UUID) -> str:
        name = selectors.webhook_by_id(webhook_id).name
        self.require_typed(name)
        webhooks.delete_webhook(webhook_id=webhook_id, precondition=same_generation(self.request), actor=self.actor)
        messages.success(self.request, f"Webhook {name} is deleted.")
        return reverse("admin:webhooks")


def register() -> None:
    """Called by `operations.admin`."""
    site: Any = admin.site
    site.add_page("webhooks/", WebhookList.as_view(), "webhooks")
    site.add_page("new-webhook/", NewWebhook.as_view(), "webhook_new")
    site.add_page("webhooks/<uuid:webhook_id>/", WebhookPage.as_view(), "webhook")
    site.add_page("webhooks/<uuid:webhook_id>/edit/", EditWebhook.as_view(), "webhook_edit")
    site.add_page("webhooks/<uuid:webhook_id>/secret/", RenewSecret.as_view(), "webhook_secret")
    site.add_page("webhooks/<uuid:webhook_id>/do/<str:action>/", WebhookActions.as_view(), "webhook_do")
    site.add_navigation("Operations", "Webhooks", "webhook", "admin:webhooks", resource="webhooks", position=46)
