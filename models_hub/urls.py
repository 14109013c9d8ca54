"""The page of the models, `/models/`. Those of their versions: `finetuning.urls.versions`."""

from django.urls import path

from models_hub import views

app_name = "models_hub"
urlpatterns = [path("", views.models, name="models")]
