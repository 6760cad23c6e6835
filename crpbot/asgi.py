"""The web process: the edge in front, Django behind it."""

import os
from typing import cast

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crpbot.settings")
django_application = get_asgi_application()

from deploy.edge import App, Edge  # noqa: E402 - the apps must be ready first

application = Edge(cast(App, django_application))
