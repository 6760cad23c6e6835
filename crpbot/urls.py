from django.contrib import admin
from django.urls import include, path

from crpbot.health import healthz

urlpatterns = [
    path("", include("accounts.urls")),
    path("", include("training.urls")),
    path("", include("gates.urls")),
    path("", include("deploy.urls")),
    path("api/", include("crpbot.api_urls")),
    path("healthz", healthz, name="healthz"),
    path("admin/", admin.site.urls),
]

handler400 = "crpbot.views.bad_request"
handler403 = "crpbot.views.forbidden"
handler404 = "crpbot.views.not_found"
handler500 = "crpbot.views.server_error"
