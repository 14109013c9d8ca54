"""Every door that speaks HTTP."""

from django.contrib import admin
from django.urls import include, path

from config import health

admin.autodiscover()

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("admin/", admin.site.urls),
    path("accounts/", include("accounts.entrance_urls")),
    path("api/", include("config.api")),
    path("settings/", include("accounts.urls")),
    path("settings/contributions/", include("finetuning.urls.contributions")),
    path("models/", include("models_hub.urls")),
    path("models/", include("finetuning.urls.versions")),
    path("datasets/", include("finetuning.urls.datasets")),
    path("jobs/", include("finetuning.urls.jobs")),
    path("", include("chat.urls")),
]
