"""A report as one HTML file: it opens from a disk, years later, on a machine without a network.

Style, scripts and figures are inside, and its own security policy lets it load nothing at all from elsewhere. Plotly's
script is 4.8 MB of it; the rest is some hundred kilobytes.
"""

import json
from datetime import datetime
from pathlib import Path

from django.contrib.staticfiles import finders
from django.template.loader import render_to_string
from django.utils.safestring import SafeString, mark_safe

from deploy.reports.comparison import Comparison
from deploy.reports.plots import draw_charts, list_chart_groups

SCRIPTS = ("plotly.min.js", "crpbot/gate.js")
STYLE = "crpbot/gate.css"


def standalone(found: Comparison, *, at: datetime) -> str:
    """The whole file. `at` is when it was written, which it says."""
    context = {
        "report": found,
        "chart_groups": list_chart_groups(found),
        "figures": {coin: _json(draw_charts(found, coin)) for coin in found.coins},
        "style": mark_safe(_static(STYLE)),
        "scripts": [_script(name) for name in SCRIPTS],
        "written_at": at,
        "is_file": True,
    }
    return render_to_string("deploy/report_file.html", context)


def name_of(found: Comparison) -> str:
    """What the file is called."""
    against = f"-against-{found.before.release}" if found.before else ""
    return f"report-release-{found.after.release}{against}.html"


def _json(figures: object) -> SafeString:
    """For a `<script type="application/json">`: nothing in it can end the element."""
    text = json.dumps({"charts": figures}, allow_nan=False, separators=(",", ":"))
    return mark_safe(text.replace("<", "\\u003c"))


def _script(name: str) -> SafeString:
    """As it is, but for what would end the element it stands in; within JavaScript's strings it means the same."""
    return mark_safe(_static(name).replace("</script", "<\\/script"))


def _static(name: str) -> str:
    path = finders.find(name)
    if path is None:
        raise FileNotFoundError(f"The static file {name} is not installed: run `make setup`.")
    return Path(path).read_text(encoding="utf-8")
