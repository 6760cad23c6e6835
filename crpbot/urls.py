from django.contrib import admin
from django.urls import include, path

from crpbot.backup.views import index as backups
from crpbot.web.features import features
from crpbot.web.glossary import glossary
from crpbot.web.health import healthz, live
from crpbot.web.runbooks import runbook

urlpatterns = [
    path("", include("accounts.urls")),
    path("", include("training.urls")),
    path("", include("studies.urls")),
    path("", include("machines.urls")),
    path("", include("gates.urls")),
    path("", include("deploy.urls")),
    path("api/", include("crpbot.api.urls")),
    path("backups/", backups, name="backups"),
    path("glossary/", glossary, name="glossary"),
    path("runbooks/<slug:name>.html", runbook, name="runbook"),
    path("features/", features, name="features"),
    path("healthz", healthz, name="healthz"),
    path("healthz/live", live, name="liveness"),
    path("admin/", admin.site.urls),
]

handler400 = "crpbot.web.views.bad_request"
handler403 = "crpbot.web.views.forbidden"
handler404 = "crpbot.web.views.not_found"
handler500 = "crpbot.web.views.server_error"
