"""Pages of the models hub, under `/models/`."""

from django.urls import path

from models_hub import views

app_name = "models_hub"
urlpatterns = [path("", views.models, name="models")]
