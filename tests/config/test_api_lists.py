from __future__ import annotations

from datetime import datetime

import pytest

from chat.cursors import decode_cursor, encode_cursor
from chat.errors import InvalidError
from config.api import api
from config.api_lists import ListQuery, cut_list


def list_operations() -> dict[str, set[str]]:
    """The addresses whose answer has `items`, and the query parameters of each."""
    schema = api.get_openapi_schema()
    shapes = schema["components"]["schemas"]
    found = {}
    for path, operations in schema["paths"].items():
        content = operations.get("get", {}).get("responses", {}).get(200, {}).get("content", {})
        reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
        if "items" in shapes.get(reference.rpartition("/")[2], {}).get("properties", {}):
            assert "next_cursor" in shapes[reference.rpartition("/")[2]]["properties"], path
            found[path] = {parameter["name"] for parameter in operations["get"]["parameters"]}
    return found


def test_every_list_of_the_api_is_paged_by_cursor():
    found = list_operations()
    assert {"/api/jobs", "/api/schedules", "/api/models/{slug}/versions", "/api/jobs/{job_id}/events"} <= found.keys()
    assert not {path for path, parameters in found.items() if not {"cursor", "limit"} <= parameters}


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, None])
def test_pages_joined_are_the_list(limit):
    items, seen, cursor = list("abcdefg"), [], None
    while True:
        page = cut_list(items, ListQuery(cursor=cursor, limit=limit), key=lambda item: item)
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert len(page["items"]) == limit
    assert seen == items


def test_moment_before_all_time_is_no_cursor():
    with pytest.raises(InvalidError, match="cursor is not valid"):
        decode_cursor(encode_cursor("0001-01-01T00:00:00+14:00"), datetime)


@pytest.mark.parametrize("cursor", ["zzz", "WyJnb25lIl0", "é", "W10"])
def test_cursor_that_leads_nowhere_is_refused(cursor):
    with pytest.raises(InvalidError, match="cursor is not valid"):
        cut_list(["a", "b"], ListQuery(cursor=cursor), key=lambda item: item)
