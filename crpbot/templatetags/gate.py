"""How figures, times and states look on a page. Nothing here decides anything."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django import template
from django.http import HttpRequest
from django.template.context import Context
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from crpbot.web.glossary import find_entry

register = template.Library()

# The colour of a state or verdict: good, bad, wait (a person must look), busy (it moves), or none.
TONES = {
    "passed": "good",
    "succeeded": "good",
    "live": "good",
    "standby": "good",
    "swap": "good",
    "alive": "good",
    "current": "good",
    "in force": "good",
    "fixed": "good",
    "holds": "good",
    "stricter": "good",
    "failed": "bad",
    "error": "bad",
    "rejected": "bad",
    "offline": "bad",
    "silent": "bad",
    "mixture": "bad",
    "behind": "bad",
    "not fixed": "bad",
    "inconclusive": "wait",
    "awaiting_approval": "wait",
    "pin": "wait",
    "inherited": "wait",
    "not known": "wait",
    "looser": "wait",
    "running": "busy",
    "building": "busy",
    "moving": "busy",
}
WORDS = {"pin": "pinned", "moving": "following"}
SIGNS = {
    "passed": ("good", "✓"),
    "failed": ("bad", "✕"),
    "inconclusive": ("wait", "?"),
    "error": ("bad", "!"),
}

_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
_SPARK_WIDTH, _SPARK_HEIGHT = 110.0, 26.0


@register.filter
def words(state: object) -> str:
    """A state as a person says it: "awaiting approval"."""
    return WORDS.get(str(state), str(state).replace("_", " "))


@register.filter
def deed(kind: str) -> str:
    """What an audit event says happened, its object known: "release.approve.refused" as "approve refused"."""
    return words(kind.partition(".")[2].replace(".", " "))


@register.simple_tag
def pill(state: object, text: object = "") -> SafeString:
    """A state or verdict in its colour; `text` in place of its own name."""
    tone = TONES.get(str(state), "")
    return format_html('<span class="pill {}">{}</span>', tone, text or words(state))


@register.simple_tag
def sign(verdict: object) -> SafeString:
    """A verdict as one small sign, spoken in full to who cannot see it."""
    tone, glyph = SIGNS.get(str(verdict), ("wait", "?"))
    return format_html(
        '<span class="sign {}" aria-hidden="true">{}</span><span class="visually-hidden">{}: </span>',
        tone,
        glyph,
        words(verdict),
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
    """ "38 minutes ago", the exact time in UTC on pointing at it; the script keeps it true."""
    if moment is None:
        return "never"
    exact = moment.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{}" data-ago>{}</time>',
        exact.strftime("%Y-%m-%dT%H:%M:%SZ"),
        exact.strftime("%Y-%m-%d %H:%M:%S UTC"),
        _ago((timezone.now() - moment).total_seconds()),
    )


def _ago(seconds: float) -> str:
    if seconds < 1:
        return "just now"
    size, unit = next((size, unit) for size, unit in _UNITS if seconds >= size)
    count = int(seconds // size)
    return f"{count} {unit}{'' if count == 1 else 's'} ago"


@register.filter
def utc(moment: datetime | None) -> SafeString | str:
    """The time itself: "22 Nov 2026, 14:02 UTC"."""
    if moment is None:
        return "never"
    exact = moment.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        exact.strftime("%Y-%m-%dT%H:%M:%SZ"),
        exact.strftime("%Y-%m-%d %H:%M:%S UTC"),
        exact.strftime("%-d %b %Y, %H:%M UTC"),
    )


@register.filter
def clock(moment: datetime) -> str:
    """The time of day to the second, in UTC."""
    return moment.astimezone(UTC).strftime("%H:%M:%S")


@register.filter
def usd(amount: Decimal | float | None) -> str:
    """ "$1.50", and "$0.0012" where cents would hide it."""
    if amount is None:
        return "—"
    value = Decimal(amount)
    return f"${value:,.4f}" if 0 < value < Decimal("0.1") else f"${value:,.2f}"


@register.filter
def duration(seconds: float | None) -> str:
    """ "1 h 4 min", "6 min 12 s", "12 s", "0.4 s"."""
    if seconds is None:
        return "—"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min")] if hours else [(minutes, "min"), (rest, "s")]
    return " ".join(f"{count:,} {unit}" for count, unit in parts if count)


@register.filter
def figure(value: float | None, digits: int = 4) -> str:
    return "—" if value is None else f"{value:,.{digits}f}"


@register.filter
def percent(share: float | None) -> str:
    return "—" if share is None else f"{100 * share:.1f} %"


@register.filter
def thousands(count: float | None) -> str:
    return "—" if count is None else f"{count:,.0f}"


@register.filter
def gigabytes(size: int | None) -> str:
    return "—" if size is None else f"{size / 2**30:,.1f} GiB"


@register.filter
def short(digest: str) -> str:
    """The beginning of a digest: enough to tell two apart."""
    return digest.removeprefix("sha256:")[:12]


@register.filter
def entries(document: object) -> Iterable[tuple[str, Any]]:
    """The entries of a document, names as words, for a template to show."""
    items = document.items() if isinstance(document, Mapping) else ()
    return [(str(name).replace("_", " "), value) for name, value in items]


@register.filter
def plain(value: object) -> str:
    """A parameter as a person writes it: 0.001, 64, true."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@register.simple_tag
def sparkline(values: Sequence[float | None], label: str = "") -> SafeString:
    """A line without axes, the newest value at the right; nothing below two values."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return mark_safe('<span class="sparkline"></span>')
    low, high = min(known), max(known)
    step = _SPARK_WIDTH / (len(known) - 1)
    reach = (high - low) or 1.0
    points = format_html_join(
        " ",
        "{},{}",
        (
            (f"{index * step:.1f}", f"{2 + (_SPARK_HEIGHT - 4) * (high - value) / reach:.1f}")
            for index, value in enumerate(known)
        ),
    )
    return format_html(
        '<svg class="sparkline" viewBox="0 0 110 26" role="img" aria-label="{}"><polyline points="{}"/></svg>',
        label,
        points,
    )


@register.simple_tag(takes_context=True)
def current_if(context: Context, *prefixes: str) -> SafeString | str:
    """Marks the entry of the navigation that this page belongs to."""
    request: HttpRequest = context["request"]
    match = request.resolver_match
    name = match.view_name if match else ""
    return mark_safe('aria-current="page"') if name in prefixes else ""


@register.simple_tag(takes_context=True)
def page_link(context: Context, number: int) -> str:
    """This page's address with another page number, its filters kept."""
    request: HttpRequest = context["request"]
    query = request.GET.copy()
    query["page"] = str(number)
    return f"?{query.urlencode()}"
