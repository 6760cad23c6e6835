"""Template filters and tags: figures, times, states, links. Texts are formatted by common.formatting."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import Any

from django import template
from django.http import HttpRequest
from django.template.context import Context
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from common import formatting
from crpbot.web.glossary import find_entry
from mlcore.verdict import Verdict

register = template.Library()

# The colour of a state or verdict: good, bad, wait (a person must decide), busy (in progress), or none.
_STATES_BY_TONE = {
    "good": "passed, succeeded, complete, finished, live, active, standby, swap, alive, current, in force, fixed, holds,"
    " stricter",
    "bad": "failed, error, rejected, offline, silent, mixture, behind, not fixed",
    "wait": "inconclusive, awaiting_approval, pin, inherited, not known, looser",
    "busy": "running, building, moving, requested, starting, stopping",
}
TONES = {state: tone for tone, states in _STATES_BY_TONE.items() for state in states.split(", ")}

_SPARK_WIDTH, _SPARK_HEIGHT = 110.0, 26.0


def _register_format(name: str, function: Callable[..., str]) -> None:
    """Register a function of common.formatting as a filter that shows a dash for None."""

    @wraps(function)
    def format_or_dash(value: Any, *arguments: Any) -> str:
        return "—" if value is None else function(value, *arguments)

    register.filter(name, format_or_dash)


_register_format("words", formatting.format_state)
_register_format("action_label", formatting.format_action)
_register_format("usd", formatting.format_usd)
_register_format("duration", formatting.format_duration)
_register_format("figure", formatting.format_number)
_register_format("percent", formatting.format_percent)
_register_format("thousands", formatting.format_count)
_register_format("gigabytes", formatting.format_gibibytes)
_register_format("short", formatting.shorten_digest)
_register_format("plain", formatting.format_parameter)


@register.simple_tag
def pill(state: object, text: object = "") -> SafeString:
    """A state or verdict in its colour; `text` replaces its name."""
    tone = TONES.get(str(state), "")
    return format_html('<span class="pill {}">{}</span>', tone, text or formatting.format_state(state))


@register.simple_tag
def sign(verdict: object) -> SafeString:
    """A verdict as a small symbol, with its name for screen readers."""
    name = str(verdict)
    return format_html(
        '<span class="sign {}" aria-hidden="true">{}</span><span class="visually-hidden">{}: </span>',
        TONES.get(name, "wait"),
        Verdict(name).sign if name in list(Verdict) else "?",
        formatting.format_state(name),
    )


@register.simple_tag(takes_context=True)
def term(context: Context, name: str, text: str = "") -> SafeString | str:
    """`text`, on its first use on a page linked to the entry `name` of the glossary.

    A saved report has no glossary beside it: text only.
    """
    text, entry = text or name, find_entry(name)
    if entry is None or context.get("is_file") or entry.anchor in (linked := _linked_terms(context)):
        return text
    linked.add(entry.anchor)
    address = f"{reverse('glossary')}#{entry.anchor}"
    return format_html('<a class="term" href="{}" title="{}">{}</a>', address, entry.summary, text)


def _linked_terms(context: Context) -> set[str]:
    """The anchors that this page links to so far. They are kept with the request, which all parts of a page share."""
    linked: set[str] = vars(context["request"]).setdefault("linked_terms", set())
    return linked


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """ "38 minutes ago" with the exact time as its title; the page's script updates it."""
    if moment is None:
        return "never"
    return _time_tag(moment, formatting.format_age((timezone.now() - moment).total_seconds()), is_age=True)


@register.filter
def utc(moment: datetime | None) -> SafeString | str:
    """ "22 Nov 2026, 14:02 UTC"."""
    if moment is None:
        return "never"
    return _time_tag(moment, moment.astimezone(UTC).strftime("%-d %b %Y, %H:%M UTC"))


def _time_tag(moment: datetime, text: str, *, is_age: bool = False) -> SafeString:
    exact = moment.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{}"{}>{}</time>',
        exact.strftime("%Y-%m-%dT%H:%M:%SZ"),
        exact.strftime("%Y-%m-%d %H:%M:%S UTC"),
        mark_safe(" data-ago") if is_age else "",
        text,
    )


@register.filter
def clock(moment: datetime) -> str:
    """The time of day in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%H:%M:%S")


@register.filter
def as_json(document: object) -> str:
    """The document as JSON, for an attribute that a script reads."""
    return json.dumps(document)


@register.filter
def entries(document: object) -> Iterable[tuple[str, Any]]:
    """The entries of a document, with spaces for underscores in their names."""
    items = document.items() if isinstance(document, Mapping) else ()
    return [(str(name).replace("_", " "), value) for name, value in items]


@register.simple_tag
def sparkline(values: Sequence[float | None], label: str = "") -> SafeString:
    """A line chart without axes, the newest value at the right; empty for fewer than two values."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return mark_safe('<span class="sparkline"></span>')
    low, high = min(known), max(known)
    step = _SPARK_WIDTH / (len(known) - 1)
    reach = (high - low) or 1.0
    points = (
        f"{index * step:.1f},{2 + (_SPARK_HEIGHT - 4) * (high - value) / reach:.1f}"
        for index, value in enumerate(known)
    )
    return format_html(
        '<svg class="sparkline" viewBox="0 0 110 26" role="img" aria-label="{}"><polyline points="{}"/></svg>',
        label,
        " ".join(points),
    )


@register.simple_tag(takes_context=True)
def current_if(context: Context, *prefixes: str) -> SafeString | str:
    """Mark the navigation entry of the current page."""
    request: HttpRequest = context["request"]
    match = request.resolver_match
    name = match.view_name if match else ""
    return mark_safe('aria-current="page"') if name in prefixes else ""
