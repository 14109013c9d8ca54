"""The addresses under `/settings/`."""

from django.urls import path

from accounts import views

urlpatterns = [
    path("", views.settings_page, name="settings"),
    path("profile/", views.save_profile, name="settings_profile"),
    path("training/", views.save_training_consent, name="settings_training"),
    path("keys/", views.create_key, name="settings_create_key"),
    path("keys/<int:key_id>/revoke/", views.revoke_key, name="settings_revoke_key"),
    path("sign-ins/<int:session_id>/end/", views.end_sign_in, name="settings_end_sign_in"),
    path("sign-ins/end-others/", views.end_other_sign_ins, name="settings_end_others"),
]
