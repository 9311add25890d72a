"""Webhooks: who is told what, how telling them went, and sending it again."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from opencrane.api.keyset import Keyset
from opencrane.console.forms import ApiForm, FormField
from opencrane.console.listing import Filter, FilterBar, listing
from opencrane.console.lists import ListPage
from opencrane.console.pages import ConsoleAction, ConsolePage
from opencrane.console.values import pretty_json
from opencrane.console.writes import same_generation
from opencrane.errors import DomainError, InvalidError
from operations import selectors, signing
from operations.api.webhooks import CreateWebhookSerializer, UpdateWebhookSerializer
from operations.models import Delivery, Webhook
from operations.services import webhooks
from operations.services.webhooks import EVENTS, TEST_EVENT

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


def webhook_url(webhook_id: UUID) -> str:
    return reverse("admin:webhook", args=[webhook_id])


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


class WebhookPage(ConsolePage):
    """A webhook with its deliveries. The pages that make a secret show it here, the one time that it is shown."""

    resource = "webhooks"
    template_name = "operations/webhook.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        return webhook_page(self, webhook_id)


def webhook_page(page: ConsolePage, webhook_id: UUID, secret: str = "") -> HttpResponse:
    """A webhook's page; no cache keeps one with a secret."""
    webhook = selectors.webhook_with_counts(webhook_id)
    bar = FilterBar(
        page.request,
        [
            Filter("status", "Result", "choice", [(key, words[2]) for key, words in STATUS.items()]),
            Filter("event", "Event", "choice", [(event, event) for event in (*sorted(EVENTS), TEST_EVENT)]),
        ],
        has_search=False,
    )
    wanted = bar.values()
    found = selectors.deliveries_of(webhook, status=wanted.get("status", ""), event=wanted.get("event", ""))
    rows = listing(page.request, DELIVERIES_NEWEST, found, rows=DELIVERY_ROWS)
    values = {
        "title": webhook.name,
        "webhook": webhook,
        "health": health_of(webhook),
        "events": [(event, EVENTS.get(event, "")) for event in webhook.events],
        "bar": bar,
        "listing": rows,
        "rows": [
            {
                "delivery": delivery,
                "status": STATUS[delivery.status],
                "payload": pretty_json(delivery.event.payload),
                "is_pending": delivery.status == Delivery.Status.PENDING,
                "again": max(delivery.not_before, webhook.not_before),
            }
            for delivery in rows.rows
        ],
        "secret": secret,
    }
    response = page.render(values, template="operations/webhook.html")
    if secret:
        response["Cache-Control"] = "no-store"
    return response


class NewWebhook(ConsolePage):
    resource = "webhooks"
    title = "New webhook"
    template_name = "console/form.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._form(ApiForm(FIELDS, {"enabled": True, "events": []}))

    def post(self, request: HttpRequest) -> HttpResponse:
        form = ApiForm.posted(FIELDS, request)
        values = form.checked(CreateWebhookSerializer, form.body())
        if values is None:
            return self._form(form, 400)
        try:
            webhook, secret = webhooks.create_webhook(values=values, actor=self.actor)
        except DomainError as exc:
            return self._form(form.refuse(exc, request), exc.http_status)
        if secret:
            return webhook_page(self, webhook.pk, secret)
        messages.success(request, f"Webhook {webhook.name} is saved.")
        return HttpResponseRedirect(webhook_url(webhook.pk))

    def _form(self, form: ApiForm, status: int = 200) -> HttpResponse:
        values = {"form": form, "submit": "Create webhook", "cancel_url": reverse("admin:webhooks")}
        return self.render(values, status=status)


class EditWebhook(ConsolePage):
    resource = "webhooks"
    template_name = "console/form.html"

    def get(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        webhook = selectors.webhook_by_id(webhook_id)
        raw = {name: getattr(webhook, name) for name in ("name", "url", "events", "description", "enabled")}
        return self._form(webhook, ApiForm(FIELDS, raw), str(webhook.generation))

    def post(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        webhook = selectors.webhook_by_id(webhook_id)
        form, seen = ApiForm.posted(FIELDS, request), request.POST.get("generation", "")
        body = form.body(blank=frozenset({"description"}))
        changes = form.checked(UpdateWebhookSerializer, {"name": "", "url": ""} | body)
        if changes is None:
            return self._form(webhook, form, seen, 400)
        try:
            webhooks.update_webhook(
                webhook_id=webhook_id, changes=changes, precondition=same_generation(request), actor=self.actor
            )
        except DomainError as exc:
            return self._form(webhook, form.refuse(exc, request), seen, exc.http_status)
        messages.success(request, f"Webhook {changes['name']} is saved.")
        return HttpResponseRedirect(webhook_url(webhook_id))

    def _form(self, webhook: Webhook, form: ApiForm, generation: str, status: int = 200) -> HttpResponse:
        values = {"title": f"Edit {webhook.name}", "form": form, "submit": "Save", "generation": generation}
        return self.render(values | {"cancel_url": webhook_url(webhook.pk)}, status=status)


class RenewSecret(ConsolePage):
    """A POST whose answer shows the new secret, and therefore no redirect."""

    resource = "webhooks"
    http_method_names = ["post"]

    def post(self, request: HttpRequest, webhook_id: UUID) -> HttpResponse:
        return webhook_page(self, webhook_id, webhooks.renew_secret(webhook_id=webhook_id, actor=self.actor))


class WebhookAction(ConsoleAction):
    """Test, resend, replay, delete."""

    resource = "webhooks"

    def act(self, *, webhook_id: UUID, action: str) -> str:
        match action:
            case "test":
                webhooks.send_test(webhook_id=webhook_id, actor=self.actor)
                messages.info(self.request, "A test event is on its way; the list shows what becomes of it.")
            case "resend":
                try:
                    delivery_id = UUID(self.request.POST.get("delivery", ""))
                except ValueError as exc:
                    raise InvalidError("There is no such delivery.") from exc
                webhooks.resend_delivery(webhook_id=webhook_id, delivery_id=delivery_id, actor=self.actor)
                messages.info(self.request, "It is on its way again.")
            case "replay":
                count = webhooks.replay(webhook_id=webhook_id, only_failed=True, actor=self.actor)
                messages.info(self.request, f"On their way again, of what had failed: {count}.")
            case "delete":
                return self._delete(webhook_id)
            case _:
                raise InvalidError("There is no such action.")
        return webhook_url(webhook_id)

    def _delete(self, webhook_id: UUID) -> str:
        name = selectors.webhook_by_id(webhook_id).name
        if self.request.POST.get("confirm", "").strip() != name:
            raise InvalidError(f"Nothing was deleted: the name typed was not {name}.")
        webhooks.delete_webhook(webhook_id=webhook_id, precondition=same_generation(self.request), actor=self.actor)
        messages.success(self.request, f"Webhook {name} is deleted.")
        return reverse("admin:webhooks")

    def back(self, *, webhook_id: UUID, action: str) -> str:
        return webhook_url(webhook_id)


def register() -> None:
    """Called by `operations.admin`."""
    site: Any = admin.site
    site.add_page("webhooks/", WebhookList.as_view(), "webhooks")
    site.add_page("new-webhook/", NewWebhook.as_view(), "webhook_new")
    site.add_page("webhooks/<uuid:webhook_id>/", WebhookPage.as_view(), "webhook")
    site.add_page("webhooks/<uuid:webhook_id>/edit/", EditWebhook.as_view(), "webhook_edit")
    site.add_page("webhooks/<uuid:webhook_id>/secret/", RenewSecret.as_view(), "webhook_secret")
    site.add_page("webhooks/<uuid:webhook_id>/do/<str:action>/", WebhookAction.as_view(), "webhook_do")
    site.add_navigation("Operations", "Webhooks", "webhook", "admin:webhooks", resource="webhooks", position=46)
