"""The admin's side bar: every registered model, and beside "Users" how many people wait for approval."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

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
}


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    return [
        {"title": app["name"], "items": [_item(model) for model in app["models"]]}
        for app in admin.site.get_app_list(request)
    ]


def _item(model: dict[str, Any]) -> dict[str, Any]:
    item = {
        "title": model["name"],
        "icon": ICONS.get(model["object_name"], "table_rows"),
        "link": model["admin_url"] or model["add_url"],
    }
    if model["model"] is User:
        item["badge"] = "config.admin_sidebar.waiting_badge"
    return item


def waiting_badge(request: HttpRequest) -> str:
    waiting = count_waiting()
    return str(waiting) if waiting else ""
