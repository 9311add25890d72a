"""Template tags of the console: times, chips, differences. Everything that goes in is escaped."""

import datetime
import shlex
from typing import Any

from django import template
from django.contrib import admin
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from opencrane.console import values

register = template.Library()

# state -> tone, icon, word
SYNC_CHIPS = {
    "synced": ("ok", "check_circle", "In sync"),
    "waiting": ("info", "hourglass_top", "Waiting"),
    "failing": ("bad", "error", "Failing"),
    "drifted": ("warn", "difference", "Drifted"),
    "deleting": ("muted", "delete", "Deleting"),
}
HEALTH_CHIPS = {
    "Running": ("ok", "play_circle", "Running"),
    "Pending": ("info", "pending", "Pending"),
    "Suspended": ("muted", "pause_circle", "Suspended"),
    "Error": ("bad", "dangerous", "Error"),
}
JOB_CHIPS = {
    "queued": ("info", "schedule", "Queued"),
    "running": ("info", "progress_activity", "Running"),
    "succeeded": ("ok", "check_circle", "Succeeded"),
    "failed": ("bad", "error", "Failed"),
    "cancelled": ("muted", "cancel", "Cancelled"),
}
OUTCOME_TONES = {"failed": ("bad", "error"), "skipped": ("warn", "skip_next"), "queued": ("info", "hourglass_top")}


@register.simple_tag
def when(moment: datetime.datetime | None, empty: str = "—") -> str:
    """A time relative to now, with the exact one on hover."""
    if moment is None:
        return empty
    stamp = moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return format_html('<time datetime="{}" title="{}">{}</time>', stamp, values.exact(moment), values.relative(moment))


@register.simple_tag
def upcoming(moment: datetime.datetime | None, empty: str = "—") -> str:
    """When something is to happen; what is due already happens any moment."""
    return "any moment" if moment is not None and moment <= timezone.now() else when(moment, empty)


@register.simple_tag
def icon(name: str) -> SafeString:
    return format_html('<span class="material-symbols-outlined oc-icon" aria-hidden="true">{}</span>', name)


@register.simple_tag
def chip(tone: str, icon_name: str, text: str, title: str = "") -> SafeString:
    """A word with colour and icon; `tone` is ok, info, warn, bad or muted."""
    return format_html(
        '<span class="oc-chip oc-{}" title="{}">{}<span>{}</span></span>', tone, title, icon(icon_name), text
    )


@register.simple_tag
def heads(*labels: str) -> SafeString:
    """The heads of a table's columns."""
    return format_html_join("", '<th scope="col">{}</th>', ((label,) for label in labels))


@register.simple_tag
def sync_chip(state: str, since: datetime.datetime | None = None) -> SafeString:
    """How far the cluster follows the row."""
    tone, icon_name, word = SYNC_CHIPS.get(state, ("muted", "help", state))
    if state == "failing" and since is not None:
        word = f"Failing since {values.relative(since).removesuffix(' ago')}"
        return chip(tone, icon_name, word, f"since {values.exact(since)}")
    return chip(tone, icon_name, word)


@register.simple_tag
def health_chip(phase: str, message: str = "") -> SafeString:
    """What the cluster says of the object."""
    tone, icon_name, word = HEALTH_CHIPS.get(phase, ("muted", "help", phase or "Unknown"))
    return chip(tone, icon_name, word, message)


@register.simple_tag
def job_chip(status: str) -> SafeString:
    tone, icon_name, word = JOB_CHIPS.get(status, ("muted", "help", status))
    return chip(tone, icon_name, word)


@register.simple_tag
def outcome_chip(outcome: str) -> SafeString:
    tone, icon_name = OUTCOME_TONES.get(outcome, ("ok", "check_circle"))
    return chip(tone, icon_name, outcome)


@register.simple_tag
def object_link(resource: str) -> SafeString | str:
    """`Tenant/anna` as a link to its page, where its kind has one."""
    kind, _, name = resource.partition("/")
    site: Any = admin.site
    url = site.object_url(kind, name) if name else ""
    return format_html('<a href="{}">{}</a>', url, resource) if url else resource


@register.simple_block_tag(takes_context=True)
def dialog(
    context: template.Context,
    content: SafeString,
    name: str,
    title: str,
    submit: str,
    *,
    action: str = "",
    key: object = "",
    confirm: str = "",
    takes_reason: bool = False,
    is_grave: bool = False,
) -> SafeString:
    """A dialog that asks before it posts; opened by a button with `data-dialog="<name>-dialog"`.

    Args:
        key: tells those of a list apart; its button says `data-dialog="<name>-<key>-dialog"`.
        action: where to; on the page of an object its action of that name, with the generation the page was made from.
        confirm: what has to be typed.
        takes_reason: whether it asks why, for the audit trail.
        is_grave: paints the button as dangerous; always so where something has to be typed.
    """
    values = {
        "name": f"{name}-{key}" if key != "" else name,
        "title": title,
        "submit": submit,
        "content": content,
        "action": action or f"{context['page_url']}do/{name}/",
        "generation": context.get("generation"),
        "confirm": confirm,
        "takes_reason": takes_reason,
        "is_grave": is_grave or bool(confirm),
    }
    found = context.template.engine.get_template("console/_dialog.html")  # type: ignore[union-attr]
    return found.render(context.new(values | {"csrf_token": context.get("csrf_token")}))


@register.simple_tag(takes_context=True)
def copy_curl(context: template.Context, *path: object, method: str = "", label: str = "curl") -> SafeString:
    """A button that copies a request to the API, with the token left to the shell."""
    url = context["request"].build_absolute_uri("/".join(["/api/v1", *map(str, path)]))
    command = f'curl {f"-X {method} " if method else ""}-H "Authorization: Bearer $OPENCRANE_API_TOKEN" {url}'
    return format_html('<button type="button" data-copy-text="{}">{}</button>', command, label)


@register.simple_tag
def copy_cli(*words: object, label: str = "CLI") -> SafeString:
    """A button that copies a command of `opencrane`: the first word as it is, names quoted for a shell."""
    command, *names = map(str, words)
    text = " ".join(["opencrane", command, *map(shlex.quote, names)])
    return format_html('<button type="button" data-copy-text="{}">{}</button>', text, label)


@register.inclusion_tag("console/_diff.html")
def diff(before: Any, after: Any, left: str = "Before", right: str = "After", cut: int = 0) -> dict[str, Any]:
    """A table of the fields that differ."""
    return {"rows": values.differences(before, after, cut=cut), "left": left, "right": right}


@register.filter
def pretty(value: Any) -> str:
    return values.pretty_json(value)


@register.filter
def compact(value: Any) -> str:
    return values.compact(value)


@register.filter
def usd(amount: Any) -> str:
    """Dollars as people read them: `$12.50`; what is less than a cent with as many places as it takes to see it."""
    value = float(amount)
    if 0 < value < 0.01:
        return f"${value:.6f}".rstrip("0") if value >= 0.000001 else "< $0.000001"
    return f"${value:,.2f}"


@register.filter
def short(count: Any) -> str:
    """`950`, `12,300`, `4.2 M`: a count as far as anybody wants to know it."""
    value = int(count)
    for size, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:,}"


@register.filter
def plain(amount: Any) -> str:
    """A decimal for an input of type number: no trailing zeros, no exponent."""
    return f"{amount:f}".rstrip("0").rstrip(".") if "." in f"{amount:f}" else f"{amount:f}"


@register.filter
def noun(count: Any, words: str) -> str:
    """`{{ count|noun:"tenant" }}`, `{{ count|noun:"entry,entries" }}`; also for a Count."""
    one, _, many = words.partition(",")
    if hasattr(count, "noun"):
        return str(count.noun(one, many))
    return f"{count:,} {one if count == 1 else many or one + 's'}"
