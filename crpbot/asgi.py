"""The web process: the edge in front, then what a request may weigh, then Django."""

import gc
import os
import resource
from typing import cast

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crpbot.settings")
django_application = cast("App", get_asgi_application())

from crpbot.web.limits import RequestSizeLimits  # noqa: E402 - the apps must be ready first
from deploy.edge.application import App, Edge  # noqa: E402

MOST_OPEN_FILES = 65_536


def allow_open_files() -> None:
    """Every bot's stream is an open file, and many systems begin a process with 1,024 of them: take what it may have."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_OPEN_FILES if most == resource.RLIM_INFINITY else min(most, MOST_OPEN_FILES)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


allow_open_files()
application = Edge(cast(App, RequestSizeLimits(django_application)))
# What is loaded by now stays: to look through all of it for rubbish, now and then, would keep every bot waiting.
gc.collect()
gc.freeze()
