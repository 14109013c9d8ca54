"""The admin's side bar: every registered model, and beside "Users" how many people wait for approval."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.templatetags.static import static

from accounts.models import User
from accounts.selectors import count_waiting

ICONS = {
    "User": "person",
    "ApiKey": "key",
    "Group": "groups",
    "Connection": "cable",
    "RegisteredModel": "neurology",
    "ModelVersion": "layers",
    "Alias": "label",
    "AliasEvent": "history",
    "Conversation": "forum",
    "Dataset": "dataset",
    "DatasetImport": "upload_file",
    "DatasetVersion": "lock",
    "Example": "list_alt",
    "FineTuningJob": "model_training",
    "Schedule": "schedule",
    "Evaluation": "balance",
    "Lineage": "account_tree",
}


# People first, for the sake of the queue; groups belong to them.
PLACES = {"accounts": 0, "auth": 1, "chat": 2, "finetuning": 3, "models_hub": 4}
TITLES = {"auth": "Groups of people", "django_celery_beat": "Background tasks"}


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    apps = sorted(admin.site.get_app_list(request), key=lambda app: PLACES.get(app["app_label"], len(PLACES)))
    return [
        {
            "title": TITLES.get(app["app_label"], app["name"]),
            "collapsible": app["app_label"] not in PLACES,
            "items": [_item(model) for model in app["models"]],
        }
        for app in apps
    ]


def _item(model: dict[str, Any]) -> dict[str, Any]:
    item = {
        "title": model["name"],
        "icon": ICONS.get(model["object_name"], "table_rows"),
        "link": model["admin_url"] or model["add_url"],
    }
    if model["model"] is User and (waiting := count_waiting()):
        item["badge"] = waiting
    return item


def favicon(request: HttpRequest) -> str:
    """The pages' own: without one, browsers ask for /favicon.ico."""
    return static("img/favicon.svg")
