"""Pages of model versions, under `/models/`. A slug may hold slashes."""

from django.urls import path

from finetuning.pages import versions

app_name = "versions"
urlpatterns = [
    path("<path:slug>/versions/", versions.list_page, name="list"),
    path("<path:slug>/versions/compare/", versions.compare, name="compare"),
    path("<path:slug>/versions/<int:number>/", versions.version_page, name="detail"),
    path("<path:slug>/versions/<int:number>/promote/", versions.promote, name="promote"),
    path("<path:slug>/versions/<int:number>/retire/", versions.retire, name="retire"),
    path("<path:slug>/versions/<int:number>/delete/", versions.delete, name="delete"),
    path("<path:slug>/versions/<int:number>/export/", versions.export, name="export"),
    path("<path:slug>/roll-back/", versions.roll_back, name="roll_back"),
]
