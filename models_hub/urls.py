"""Pages of the models hub, under `/models/`. A slug may hold slashes."""

from django.urls import path

from models_hub import version_pages, views

app_name = "models_hub"
urlpatterns = [
    path("", views.models, name="models"),
    path("<path:slug>/versions/", version_pages.list_page, name="versions"),
    path("<path:slug>/versions/compare/", version_pages.compare, name="compare"),
    path("<path:slug>/versions/<int:number>/", version_pages.version_page, name="version"),
    path("<path:slug>/versions/<int:number>/promote/", version_pages.promote, name="promote"),
    path("<path:slug>/versions/<int:number>/retire/", version_pages.retire, name="retire"),
    path("<path:slug>/versions/<int:number>/delete/", version_pages.delete, name="delete"),
    path("<path:slug>/versions/<int:number>/export/", version_pages.export, name="export"),
    path("<path:slug>/roll-back/", version_pages.roll_back, name="roll_back"),
]
