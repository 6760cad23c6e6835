"""A report as one HTML file. It opens from a disk, years later, without a network.

Style, scripts and figures are inside, and its security policy forbids it to load anything else. Plotly's script takes
4.8 MB; the rest is a few hundred kilobytes.
"""

import json
from datetime import datetime
from pathlib import Path

from django.contrib.staticfiles import finders
from django.template.loader import render_to_string
from django.utils.safestring import SafeString, mark_safe

from deploy.reports.charts import draw_charts, list_chart_groups
from deploy.reports.comparison import Comparison

SCRIPTS = ("plotly.min.js", "crpbot/gate.js")
STYLE = "crpbot/gate.css"


def render_standalone(comparison: Comparison, *, at: datetime) -> str:
    """The whole file. It shows `at`, the time when it was written."""
    context = {
        "report": comparison,
        "chart_groups": list_chart_groups(comparison),
        "figures": {coin: _embed_json(draw_charts(comparison, coin)) for coin in comparison.coins},
        "style": mark_safe(_read_static(STYLE)),
        "scripts": [_embed_script(name) for name in SCRIPTS],
        "written_at": at,
        "is_file": True,
    }
    return render_to_string("deploy/report_file.html", context)


def build_file_name(comparison: Comparison) -> str:
    """The name of the file."""
    against = f"-against-{comparison.before.release}" if comparison.before else ""
    return f"report-release-{comparison.after.release}{against}.html"


def _embed_json(figures: object) -> SafeString:
    """For a `<script type="application/json">`: nothing in it can end the element."""
    text = json.dumps({"charts": figures}, allow_nan=False, separators=(",", ":"))
    return mark_safe(text.replace("<", "\\u003c"))


def _embed_script(name: str) -> SafeString:
    """Escaped where it would end its own element; inside JavaScript's strings the meaning is the same."""
    return mark_safe(_read_static(name).replace("</script", "<\\/script"))


def _read_static(name: str) -> str:
    path = finders.find(name)
    if path is None:
        raise FileNotFoundError(f"The static file {name} is not installed: run `make setup`.")
    return Path(path).read_text(encoding="utf-8")
