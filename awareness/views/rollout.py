"""The rollout board; promoting, rolling back and defining, each after a look at what it changes."""

import hashlib
from collections.abc import Collection
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import orjson
from django.conf import settings
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from awareness import selectors
from awareness.api.serializers import DefineRolloutSerializer
from awareness.rollout import DEFAULT_WAVES, Rollout
from awareness.services import rollouts
from opencrane.console.access import READ, may
from opencrane.console.forms import ApiForm, FormField, Section
from opencrane.console.pages import ConsolePage
from opencrane.console.values import differences
from opencrane.errors import InvalidError, PreconditionFailedError
from operations import audit_reading
from operations.audit_pages import AuditFilter

NAMES_SHOWN = 50
AUDIT_SHOWN = 8
PLACE_LABELS = {
    "on_target": ("On target", "ok"),
    "on_stable": ("On stable", "muted"),
    "drifted": ("Drifted", "warn"),
    "silent": ("Silent", "bad"),
    "unreported": ("Version not said", "info"),
}


class RolloutForm(ApiForm):
    sections = (
        Section(
            "",
            (
                FormField(
                    "targetVersion", "Target version", help="A semantic version, such as 1.4.0.", is_required=True
                ),
                FormField(
                    "stableVersion",
                    "Stable version",
                    help="What waves run that are not promoted. Blank: the pinned one.",
                ),
                FormField("waves", "Waves", "lines", "One per line, in the order they are promoted."),
                FormField(
                    "shadowMode",
                    "Shadow mode",
                    "select",
                    "In shadow mode promoted waves stay on the stable version and run the target beside it.",
                    options=(("", "Off"), ("yes", "On")),
                ),
            ),
        ),
    )

    @classmethod
    def of(cls, state: Rollout) -> "RolloutForm":
        return cls(
            {
                "targetVersion": state.target_version if state.is_defined else "",
                "stableVersion": state.stable_version,
                "waves": "\n".join(state.waves),
                "shadowMode": "yes" if state.shadow_mode else "",
            }
        )

    def body(self, touched: Collection[str] | None = None) -> dict[str, Any]:
        """All of it: what is blank goes back to the default."""
        return super().body(self.raw) | {"shadowMode": self.raw["shadowMode"] == "yes"}


class Board(ConsolePage):
    resource = "awareness"
    title = "Awareness rollout"
    template_name = "awareness/board.html"
    http_method_names = ["get", "head"]

    def get(self, request: HttpRequest) -> HttpResponse:
        board = selectors.board()
        people = reverse("admin:participation")
        columns = []
        for column in board.columns:
            places = [
                {
                    "key": place,
                    "label": label,
                    "tone": tone,
                    "count": getattr(column, place),
                    "url": f"{people}?{urlencode({'wave': column.wave, 'place': place})}",
                }
                for place, (label, tone) in PLACE_LABELS.items()
            ]
            url = f"{people}?{urlencode({'wave': column.wave})}"
            columns.append({"column": column, "places": places, "url": url})
        entries = []
        if may(request.user, "audit", READ):
            wanted = AuditFilter(resource="AwarenessRollout/fleet")
            entries = audit_reading.read_page(wanted, request, rows=AUDIT_SHOWN).entries
        return self.render(
            {
                "rollout": board.rollout,
                "columns": columns,
                "entries": entries,
                "silent_minutes": int(selectors.SILENT_AFTER.total_seconds() // 60),
                "api_url": request.build_absolute_uri("/api/v1"),
            }
        )


class ChangeRollout(ConsolePage):
    """GET shows which tenants a promotion or rollback changes; POST does exactly that, or refuses."""

    resource = "awareness"
    template_name = "awareness/change.html"

    def get(self, request: HttpRequest, action: str) -> HttpResponse:
        preview = self._preview(action, request.GET.get("wave") or None)
        verb = "Promote" if action == "promote" else "Roll back"
        rows = [
            {
                "change": change,
                "url": f"{reverse('admin:participation')}?{urlencode({'wave': change.wave})}",
                "more": change.tenants - len(change.names),
            }
            for change in preview.changes
        ]
        return self.render(
            {
                "title": f"{verb} {', '.join(change.wave for change in preview.changes)}?",
                "verb": verb,
                "preview": preview,
                "rows": rows,
                "last": preview.changes[-1].wave if preview.changes else "",
                "seen": fingerprint(preview.before),
            }
        )

    def post(self, request: HttpRequest, action: str) -> HttpResponse:
        require_unchanged(request, selectors.current_rollout())
        if action == "promote":
            state = rollouts.promote(wave=request.POST.get("wave") or None, actor=self.actor)
            promoted = ", ".join(state.promoted_waves)
            messages.success(request, f"Promoted: {promoted}. Pods follow as they fetch their contract.")
        elif action == "rollback":
            state = rollouts.roll_back(actor=self.actor)
            stable = state.stable_version
            messages.success(request, f"Every wave is back on {stable}. Pods follow as they fetch their contract.")
        else:
            raise InvalidError("There is no such action.")
        return HttpResponseRedirect(reverse("admin:rollout"))

    def _preview(self, action: str, wave: str | None) -> selectors.Preview:
        if action not in {"promote", "rollback"}:
            raise InvalidError("There is no such action.")
        try:
            return selectors.promotion_preview(action, wave=wave, names=NAMES_SHOWN)
        except ValueError as exc:
            raise InvalidError("There is no such wave.") from exc


class DefineRollout(ConsolePage):
    """Steps by POST: `review` shows what changes, `edit` goes back to the form, `save` writes."""

    resource = "awareness"
    title = "Define the rollout"
    template_name = "awareness/define.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        now = selectors.current_rollout()
        return self._form(RolloutForm.of(now), fingerprint(now))

    def post(self, request: HttpRequest) -> HttpResponse:
        form = RolloutForm.posted(request)
        seen = request.POST.get("seen", "")
        if request.POST.get("step") == "edit":
            return self._form(form, seen)
        now = selectors.current_rollout()
        require_unchanged(request, now)
        values = form.checked(DefineRolloutSerializer, form.body())
        if values is None:
            return self._form(form, seen, status=400)
        if request.POST.get("step") != "save":
            return self._review(now, values, form, seen)
        rollouts.define_rollout(values=values, actor=self.actor)
        messages.success(request, f"The rollout of {values['target_version']} is defined; no wave is promoted yet.")
        return HttpResponseRedirect(reverse("admin:rollout"))

    def _review(self, now: Rollout, values: dict[str, Any], form: RolloutForm, seen: str) -> HttpResponse:
        then = replace(
            now,
            target_version=values["target_version"],
            stable_version=values["stable_version"] or settings.AWARENESS_PINNED_VERSION,
            waves=tuple(values["waves"] or DEFAULT_WAVES),
            shadow_mode=values["shadow_mode"],
            frontier=0,
            is_defined=True,
        )
        before, after = now.as_json(), then.as_json()
        names = [name for name in before if before[name] != after[name]]
        return self.render(
            {
                "title": "Define this rollout?",
                "raw": form.raw,
                "seen": seen,
                "rows": differences({name: before[name] for name in names}, {name: after[name] for name in names}),
                "changes": selectors.version_changes(now, then),
                "target": then.target_version,
                "back_url": reverse("admin:rollout"),
            },
            template="awareness/define_review.html",
        )

    def _form(self, form: RolloutForm, seen: str, status: int = 200) -> HttpResponse:
        values = {"form": form, "submit": "Review changes", "cancel_url": reverse("admin:rollout"), "seen": seen}
        return self.render(values, status=status)


def fingerprint(state: Rollout) -> str:
    """Stands for a state of the rollout, in forms that were made from it."""
    text = orjson.dumps([state.as_json(), state.is_defined], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()


def require_unchanged(request: HttpRequest, state: Rollout) -> None:
    """Raises PreconditionFailedError unless the rollout is as it was when the form was made."""
    if request.POST.get("seen") != fingerprint(state):
        raise PreconditionFailedError(
            "Somebody else changed the rollout after you opened this page; nothing was done.",
            detail="Open the board again and look at what would change now.",
        )


def register() -> None:
    """Called by `awareness.admin`."""
    site: Any = admin.site
    site.add_page("rollout/", Board.as_view(), "rollout")
    site.add_page("rollout/define/", DefineRollout.as_view(), "rollout_define")
    site.add_page("rollout/change/<str:action>/", ChangeRollout.as_view(), "rollout_change")
    site.add_navigation("Awareness", "Rollout", "rocket_launch", "admin:rollout", resource="awareness", position=36)
