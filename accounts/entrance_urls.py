"""The addresses under `/accounts/`: allauth's, but for the pages whose job `/settings/` does."""

from django.urls import include, path
from django.views.generic import RedirectView

from accounts import views

to_settings = RedirectView.as_view(pattern_name="settings")

urlpatterns = [
    path("waiting/", views.waiting, name="accounts_waiting"),
    # Several addresses for one person would be several names to sign in with, none of them checked.
    path("email/", to_settings),
    path("sessions/", to_settings),
    path("", include("allauth.urls")),
]
