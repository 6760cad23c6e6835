"""The web process: request ids, metrics and the edge first, then the size limits of requests, then Django."""

import gc
import os
import resource
from typing import cast

from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crpbot.settings")
try:
    django_application = cast("App", get_asgi_application())
except ImproperlyConfigured as error:  # one sentence, as manage.py prints it
    raise SystemExit(str(error)) from None

# The apps must be ready before these are imported.
from audit.database_roles import DatabaseRole, require_least_privilege
from common import correlation
from crpbot.request_ids import RequestIds
from crpbot.web.disconnects import NoticeDisconnects
from crpbot.web.limits import RequestSizeLimits
from crpbot.web.metrics import Metrics
from deploy.edge.application import App, Edge

MAX_OPEN_FILES = 65_536


def raise_open_file_limit() -> None:
    """Every stream of a bot is an open file, and many systems start a process with a limit of 1,024: raise it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


raise_open_file_limit()
require_least_privilege(DatabaseRole.APPLICATION)
application = RequestIds(Metrics(Edge(cast(App, RequestSizeLimits(NoticeDisconnects(django_application))))))
correlation.prepare()
# Loaded code is never freed: a garbage collection that scans it would delay every bot.
gc.collect()
gc.freeze()
