"""Pages of datasets, under `/datasets/`."""

from django.urls import path

from finetuning.pages import dataset_building, dataset_imports, dataset_review, dataset_versions, datasets

app_name = "datasets"
urlpatterns = [
    path("", datasets.list_page, name="list"),
    path("new/", datasets.new, name="new"),
    path("from-conversations/", dataset_building.build, name="from_conversations"),
    path("from-conversations/count/", dataset_building.count, name="count"),
    path("<int:dataset_id>/", datasets.dataset, name="dataset"),
    path("<int:dataset_id>/add/", datasets.add, name="add"),
    path("<int:dataset_id>/delete/", datasets.delete, name="delete"),
    path("<int:dataset_id>/imports/<uuid:import_id>/", dataset_imports.source_import, name="import"),
    path("<int:dataset_id>/imports/<uuid:import_id>/columns/", dataset_imports.columns, name="columns"),
    path("<int:dataset_id>/imports/<uuid:import_id>/problems/", dataset_imports.problems, name="problems"),
    path("<int:dataset_id>/review/", dataset_review.review, name="review"),
    path("<int:dataset_id>/examples/<int:example_id>/", dataset_review.example, name="example"),
    path("<int:dataset_id>/examples/<int:example_id>/edit/", dataset_review.edit, name="edit"),
    path("<int:dataset_id>/versions/", dataset_versions.versions, name="versions"),
    path("<int:dataset_id>/versions/<int:version_number>/", dataset_versions.version, name="version"),
    path("<int:dataset_id>/diff/", dataset_versions.diff, name="diff"),
]
