"""The pages of datasets: curators only, every state has a page, and a long list costs no more queries."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from accounts.models import User
from chat.models import Conversation, Correction, Feedback, Message
from finetuning import datasets as services
from finetuning.formats import check_example
from finetuning.models import (
    Dataset,
    DatasetImport,
    DatasetVersion,
    Example,
    FineTuningJob,
    ImportProblem,
    Lineage,
)
from models_hub.models import Connection, ModelVersion, RegisteredModel

HTMX = {"HX-Request": "true"}
Status = DatasetImport.Status
INLINE = re.compile(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)|<style|\sstyle=|\son\w+=", re.IGNORECASE)


@pytest.fixture(autouse=True)
def _own_folder(settings, tmp_path):
    """Uploads and versions are files."""
    from dataclasses import replace

    settings.DIALOOP = replace(settings.DIALOOP, data_dir=tmp_path)


@pytest.fixture
def curator(db, alice) -> User:
    alice.user_permissions.add(Permission.objects.get(codename="curate"))
    return User.objects.get(pk=alice.pk)


@pytest.fixture
def page(client, curator):
    client.force_login(curator)
    return client


def chat_content(question: str, answer: str) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


CONTENTS = {
    "chat": lambda n: chat_content(f"How high is hill {n}?", f"{n} metres."),
    "preference": lambda n: {
        "prompt": [{"role": "user", "content": f"Say {n} kindly"}],
        "chosen": [{"role": "assistant", "content": f"Gladly: {n}"}],
        "rejected": [{"role": "assistant", "content": f"{n}!"}],
    },
    "kto": lambda n: {
        "prompt": [{"role": "user", "content": f"Count to {n}"}],
        "completion": [{"role": "assistant", "content": f"1 to {n}"}],
        "label": n % 2 == 0,
    },
    "classification": lambda n: {"text": f"Film {n} was fine", "label": "good" if n % 3 else "bad"},
    "text": lambda n: {"text": f"Line {n} of a long book"},
}


def fill(dataset: Dataset, rows: int, *, kind: str = "", is_approved: bool = True, contents=None) -> Dataset:
    kind = kind or dataset.kind
    made = contents or [CONTENTS[kind](number) for number in range(rows)]
    examples = [check_example(kind, content)[0] for content in made]
    drafts = [services.Draft(example, line=line) for line, example in enumerate(examples, 1)]
    services.add_drafts(dataset, drafts, source_import=None, is_approved=is_approved)
    dataset.refresh_from_db()
    return dataset


@pytest.fixture
def make_dataset(curator):
    def make(name: str = "Hills", *, kind: str = "chat", rows: int = 0, is_approved: bool = True, contents=None):
        dataset = services.create_dataset(name, user=curator, kind=kind)
        return fill(dataset, rows, is_approved=is_approved, contents=contents) if rows or contents else dataset

    return make


@pytest.fixture
def hills(make_dataset) -> Dataset:
    return make_dataset(rows=12)


def make_import(dataset: Dataset, status: str, **fields) -> DatasetImport:
    values = {"file_name": "hills.jsonl", "size": 10, "part_size": services.PART_SIZE, "status": status} | fields
    return DatasetImport.objects.create(dataset=dataset, **values)


WAITING_LAYOUT = {
    "container": "csv",
    "format_name": "",
    "encoding": "utf-8",
    "delimiter": ",",
    "has_header": True,
    "columns": {},
    "reason": "This looks like a table, but no known format fits its columns.",
    "seen_columns": ["review", "stars"],
    "matches": [],
    "sample": [{"review": "Too <long>", "stars": "2"}],
}


def address(name: str, *arguments) -> str:
    return reverse(f"datasets:{name}", args=arguments)


def text_of(response) -> str:
    return response.content.decode()


def every_address(dataset: Dataset, source_import: DatasetImport, version: DatasetVersion) -> list[str]:
    row = dataset.examples.first()
    return [
        address("list"),
        address("new"),
        address("from_conversations"),
        address("count"),
        address("dataset", dataset.pk),
        address("add", dataset.pk),
        address("delete", dataset.pk),
        address("import", dataset.pk, source_import.pk),
        address("columns", dataset.pk, source_import.pk),
        address("problems", dataset.pk, source_import.pk),
        address("review", dataset.pk),
        address("example", dataset.pk, row.pk),
        address("edit", dataset.pk, row.pk),
        address("versions", dataset.pk),
        address("version", dataset.pk, version.number),
        address("diff", dataset.pk),
    ]


@pytest.fixture
def frozen(hills, curator) -> DatasetVersion:
    return services.freeze_now(hills, user=curator, notes="First look")


# --- who ----------------------------------------------------------------------------------------------------


def test_every_page_opens_to_curator_and_admin_and_carries_nothing_inline(client, curator, admin_user, hills, frozen):
    addresses = every_address(hills, make_import(hills, Status.SUCCEEDED), frozen)
    for who in (curator, admin_user):
        client.force_login(who)
        for path in addresses:
            response = client.get(path, follow=True)
            assert response.status_code == 200, path
            assert INLINE.search(text_of(response)) is None, path


def test_member_is_refused_everywhere(client, bob, hills, frozen):
    client.force_login(bob)
    for path in every_address(hills, make_import(hills, Status.SUCCEEDED), frozen):
        for call in (client.get, client.post):
            response = call(path)
            assert response.status_code in (403, 405), path
            assert hills.name not in text_of(response)
    assert Dataset.objects.filter(deleted_at=None).count() == 1


def test_anonymous_is_sent_to_sign_in(client, hills, frozen):
    for path in every_address(hills, make_import(hills, Status.SUCCEEDED), frozen):
        response = client.get(path)
        assert response.status_code == 302
        assert response["Location"].startswith("/accounts/login/")


def test_fragment_of_an_ended_session_leads_the_whole_page_to_sign_in(client, hills):
    response = client.get(address("review", hills.pk), headers=HTMX)
    assert response["HX-Redirect"].startswith("/accounts/login/")


def test_only_curators_see_the_way_in(client, curator, bob):
    for who, is_shown in ((curator, True), (bob, False)):
        client.force_login(who)
        assert ('href="/datasets/"' in text_of(client.get("/models/"))) is is_shown


def test_what_is_not_there_is_not_found(page, hills, make_dataset):
    other = make_dataset("Other", rows=1)
    row = other.examples.first()
    item = make_import(other, Status.SUCCEEDED)
    services.delete_dataset(gone := make_dataset("Gone"))
    for path in (
        address("dataset", 999_999),
        address("dataset", gone.pk),
        address("example", hills.pk, row.pk),
        address("edit", hills.pk, row.pk),
        address("import", hills.pk, item.pk),
        address("version", hills.pk, 7),
    ):
        assert page.get(path).status_code == 404, path


def test_broken_cursor_is_not_found(page, hills):
    item = make_import(hills, Status.SUCCEEDED)
    for path in (address("list"), address("review", hills.pk), address("problems", hills.pk, item.pk)):
        assert page.get(f"{path}?cursor=zzz", headers=HTMX).status_code == 404, path


# --- list and overview --------------------------------------------------------------------------------------


def test_empty_list_explains_the_loop_and_both_ways_in(page):
    text = text_of(page.get(address("list")))
    assert "Feedback" in text
    assert address("new") in text
    assert address("from_conversations") in text


def test_list_shows_rows_by_state_and_the_newest_version(page, hills, frozen, make_dataset):
    services.reject(hills.examples.filter(pk=hills.examples.first().pk), user=None)
    make_dataset("Nothing yet", kind="")
    make_import(hills, Status.RUNNING)
    text = text_of(page.get(address("list")))
    assert "<strong>11</strong> approved" in text
    assert "<strong>1</strong> rejected" in text
    assert ">v1</a>, 12 rows" in text
    assert "No rows yet" in text
    assert "Reading: hills.jsonl" in text


def test_list_costs_no_more_queries_for_many(page, make_dataset, django_assert_max_num_queries):
    for number in range(12):
        make_dataset(f"Set {number}", rows=11)
    page.get(address("list"))  # the first request of a session writes down where it is open
    with django_assert_max_num_queries(12):
        page.get(address("list"))


def test_overview_counts_warns_and_draws(page, make_dataset):
    films = make_dataset("Films", kind="classification", rows=30)
    text = text_of(page.get(address("dataset", films.pk)))
    assert "30 rows" in text
    assert re.search(r'<progress[^>]*aria-label="good"', text)
    assert "Half of the rows have at most" in text
    make_import(films, Status.WAITING, layout=WAITING_LAYOUT)
    assert "Map its columns" in text_of(page.get(address("dataset", films.pk)))


def test_overview_names_personal_data(page, make_dataset):
    found = make_dataset(contents=[chat_content("Write to ann@example.org", "Done")])
    assert "finding=any" in text_of(page.get(address("dataset", found.pk)))


def test_overview_of_an_empty_dataset_offers_both_ways_in(page, make_dataset):
    empty = make_dataset("Empty", kind="")
    text = text_of(page.get(address("dataset", empty.pk)))
    assert "No rows yet" in text
    assert f"?dataset={empty.pk}" in text


def test_overview_costs_a_fixed_number_of_queries(page, make_dataset, django_assert_max_num_queries):
    many = make_dataset(rows=300)
    for number in range(15):
        make_import(many, Status.SUCCEEDED, file_name=f"{number}.jsonl")
    page.get(address("list"))
    with django_assert_max_num_queries(20):
        page.get(address("dataset", many.pk))


def test_dataset_gets_another_name_and_a_taken_one_is_refused_in_place(page, hills, make_dataset):
    make_dataset("Valleys")
    page.post(address("dataset", hills.pk), {"name": "Mountains", "description": "High ones"})
    hills.refresh_from_db()
    assert (hills.name, hills.description) == ("Mountains", "High ones")
    response = page.post(address("dataset", hills.pk), {"name": "Valleys", "description": "What I typed"})
    assert response.status_code == 400
    assert "What I typed" in text_of(response)
    assert "Valleys" in text_of(response)
    hills.refresh_from_db()
    assert hills.name == "Mountains"


def test_dataset_is_deleted_after_a_question(page, hills, frozen):
    assert "12 rows and 1 frozen version" in text_of(page.get(address("delete", hills.pk)))
    assert page.post(address("delete", hills.pk)).status_code == 302
    assert page.get(address("dataset", hills.pk)).status_code == 404
    assert hills.name not in text_of(page.get(address("list"))).split("is deleted")[-1]


def test_dataset_in_use_says_why_it_stays(page, hills, frozen, engine_model):
    make_job(frozen, engine_model)
    response = page.post(address("delete", hills.pk))
    assert response.status_code == 409
    assert "Cancel it first" in text_of(response)
    assert page.get(address("dataset", hills.pk)).status_code == 200


# --- imports ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [status for status in Status if status not in (Status.WAITING, Status.RECEIVING)])
def test_import_has_a_page_in_every_state(page, hills, status):
    item = make_import(hills, status, error_message="The file is full of holes." if status == Status.FAILED else "")
    text = text_of(page.get(address("import", hills.pk, item.pk)))
    assert ("hx-trigger" in text) is (status in (Status.QUEUED, Status.RUNNING))
    assert ("full of holes" in text) is (status == Status.FAILED)
    assert item.get_status_display() in text


def test_upload_that_stopped_says_what_is_here_and_asks_for_the_same_file(page, hills, curator):
    size = 2 * services.PART_SIZE + 5
    item = services.start_upload(hills, file_name="big.jsonl", size=size, user=curator)
    services.receive_part(item, 2, b"x" * services.PART_SIZE)
    text = text_of(page.get(address("import", hills.pk, item.pk)))
    assert "1 of 3 parts" in text
    assert f'data-size="{size}"' in text
    page.post(address("import", hills.pk, item.pk), {"action": "cancel"})
    item.refresh_from_db()
    assert item.status == Status.CANCELLED


def test_columns_are_mapped(page, make_dataset):
    films = make_dataset("Films", kind="")
    item = make_import(films, Status.WAITING, layout=WAITING_LAYOUT)
    text = text_of(page.get(address("import", films.pk, item.pk)))
    assert escape("Too <long>") in text
    assert "no known format fits" in text
    fields = text_of(page.get(address("columns", films.pk, item.pk), {"format_name": "classification"}))
    assert 'name="column-text"' in fields
    assert 'name="column-label"' in fields
    form = {"action": "layout", "format_name": "classification", "column-text": "review", "column-label": ""}
    response = page.post(address("import", films.pk, item.pk), form)
    assert response.status_code == 400
    assert re.search(r'<option value="review" selected', text_of(response))
    response = page.post(address("import", films.pk, item.pk), form | {"column-label": "stars"})
    assert response.status_code == 302
    item.refresh_from_db()
    assert (item.status, item.layout["columns"]) == (Status.QUEUED, {"text": "review", "label": "stars"})


def test_report_shows_lines_and_filters_by_kind_of_problem(page, hills):
    item = make_import(
        hills,
        Status.SUCCEEDED,
        codes={"broken_json": 3, "empty_turn": 1},
        findings={"email": 2},
        rows_read=40,
        rows_refused=4,
    )
    ImportProblem.objects.create(source_import=item, line=4012, code="broken_json", severity="error", message="Broken.")
    ImportProblem.objects.create(source_import=item, line=7, code="empty_turn", severity="error", message="Empty turn.")
    text = text_of(page.get(address("import", hills.pk, item.pk)))
    assert "4,012" in text
    assert "mail address" in text
    only = text_of(page.get(address("problems", hills.pk, item.pk), {"code": "empty_turn"}))
    assert "Empty turn." in only
    assert "4,012" not in only


def test_report_of_many_problems_comes_in_pages(page, hills, django_assert_max_num_queries):
    item = make_import(hills, Status.SUCCEEDED, codes={"broken_json": 500})
    ImportProblem.objects.bulk_create(
        ImportProblem(source_import=item, line=line, code="broken_json", severity="error", message=f"Problem {line}.")
        for line in range(1, 251)
    )
    seen, path = [], address("problems", hills.pk, item.pk)
    page.get(path)
    while path:
        with django_assert_max_num_queries(12):
            text = text_of(page.get(path))
        seen += re.findall(r"Problem (\d+)\.", text)
        more = re.search(r'hx-get="([^"]*cursor=[^"]*)"', text)
        path = more[1].replace("&amp;", "&") if more else ""
    assert seen == [str(line) for line in range(1, 251)]


# --- review -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Dataset.Kind.values)
def test_row_of_every_kind_is_shown_and_edited(page, make_dataset, kind):
    found = make_dataset(kind.title(), kind=kind, rows=1, is_approved=False)
    row = found.examples.get()
    assert page.get(address("review", found.pk)).status_code == 200
    form = text_of(page.get(address("edit", found.pk, row.pk), headers=HTMX))
    form = re.sub(r"<template>.*?</template>", "", form, flags=re.S)
    fields = re.findall(r"<textarea[^>]*name=\"([a-z]+)-content\"[^>]*>\n(.*?)</textarea>", form, re.S)
    data: dict[str, list[str]] = {"action": ["approve"]}
    for name, text in fields:
        data.setdefault(f"{name}-content", []).append(text.replace("&amp;", "&") + " indeed")
        data.setdefault(f"{name}-role", []).append(
            "assistant" if name in ("chosen", "rejected", "completion") else "user"
        )
    if kind == "chat":
        data["messages-role"] = ["user", "assistant"]
    data["label"] = ["true" if kind == "kto" else "brand new"]
    response = page.post(address("edit", found.pk, row.pk), data, headers=HTMX)
    assert response.status_code == 200, text_of(response)
    row.refresh_from_db()
    assert "indeed" in str(row.content)
    assert row.original is not None
    assert row.status == Example.Status.APPROVED
    text = text_of(page.get(address("review", found.pk), {"status": "", "example": row.pk}))
    assert "Original" in text
    assert "alice" in text


def test_decision_brings_the_next_row_and_the_way_back(page, make_dataset, curator):
    found = make_dataset(rows=3, is_approved=False)
    first, second, third = found.examples.order_by("pk")
    response = page.post(address("example", found.pk, first.pk), {"action": "approve"}, headers=HTMX)
    text = text_of(response)
    assert f'data-id="{second.pk}"' in text
    assert f"example={first.pk}" in text
    first.refresh_from_db()
    assert (first.status, first.reviewed_by) == (Example.Status.APPROVED, curator)
    page.post(address("example", found.pk, second.pk), {"action": "reject"}, headers=HTMX)
    text = text_of(page.post(address("example", found.pk, third.pk), {"action": "reject"}, headers=HTMX))
    assert "Nothing is left to review" in text
    assert list(found.examples.order_by("pk").values_list("status", flat=True)) == ["approved", "rejected", "rejected"]


def test_decision_works_without_scripts(page, make_dataset):
    found = make_dataset(rows=2, is_approved=False)
    first, second = found.examples.order_by("pk")
    response = page.post(address("example", found.pk, first.pk), {"action": "approve"}, follow=True)
    assert f'data-id="{second.pk}"' in text_of(response)


def test_personal_data_is_marked_and_masked(page, make_dataset):
    found = make_dataset(contents=[chat_content("Write to ann@example.org <now>", "Done")], is_approved=False)
    row = found.examples.get()
    text = text_of(page.get(address("review", found.pk)))
    assert re.search(r'<mark class="finding" title="E-mail address">.*?ann@example.org</mark>', text)
    assert escape("<now>") in text
    text = text_of(page.post(address("example", found.pk, row.pk), {"action": "mask"}, headers=HTMX))
    row.refresh_from_db()
    assert "[EMAIL]" in str(row.content)
    assert "ann@example.org" not in str(row.content)
    assert f'data-id="{row.pk}"' in text  # it stays, to be decided


def test_masked_row_that_no_longer_matches_has_no_number(page, make_dataset):
    found = make_dataset(contents=[chat_content("Write to ann@example.org", "Done")], is_approved=False)
    data = {"action": "mask", "status": "pending", "finding": "any"}
    assert "this is number 1" in text_of(page.get(address("review", found.pk), data))
    text = text_of(page.post(address("example", found.pk, found.examples.get().pk), data, headers=HTMX))
    assert "<strong>0</strong> rows match" in text
    assert "this is number" not in text


def test_relabelled_row_has_its_new_label(page, make_dataset):
    films = make_dataset("Films", kind="classification", rows=3)
    row = films.examples.first()
    page.post(address("example", films.pk, row.pk), {"action": "relabel", "label": "mixed"}, headers=HTMX)
    row.refresh_from_db()
    assert (row.label, row.content["label"]) == ("mixed", "mixed")


def test_refused_edit_keeps_what_was_written(page, hills):
    row = hills.examples.first()
    data = {"messages-role": ["user", "assistant"], "messages-content": ["My long <question>", ""], "action": "save"}
    response = page.post(address("edit", hills.pk, row.pk), data, headers=HTMX)
    assert response.status_code == 422
    assert escape("My long <question>") in text_of(response)
    assert 'role="alert"' in text_of(response)
    before = row.content
    row.refresh_from_db()
    assert row.content == before


def test_unknown_action_changes_nothing(page, hills):
    row = hills.examples.first()
    assert page.post(address("example", hills.pk, row.pk), {"action": "eat"}).status_code == 422
    page.post(address("review", hills.pk), {"action": "eat", "up_to": row.pk})
    assert set(hills.examples.values_list("status", flat=True)) == {Example.Status.APPROVED}


def test_decision_about_all_spares_rows_that_came_later(page, make_dataset):
    found = make_dataset(rows=4, is_approved=False)
    text = text_of(page.get(address("review", found.pk)))
    up_to = re.search(r'name="up_to" value="(\d+)"', text)[1]
    fill(found, 0, contents=[CONTENTS["chat"](99)], is_approved=False)
    page.post(address("review", found.pk), {"action": "approve", "status": "pending", "up_to": up_to})
    assert found.examples.filter(status=Example.Status.APPROVED).count() == 4
    assert found.examples.filter(status=Example.Status.PENDING).count() == 1


def test_decision_about_all_keeps_to_the_filter(page, make_dataset):
    contents = [chat_content("Write to ann@example.org", "Done"), *[CONTENTS["chat"](n) for n in range(3)]]
    found = make_dataset(contents=contents, is_approved=False)
    up_to = found.examples.last().pk
    page.post(address("review", found.pk), {"action": "reject", "status": "", "finding": "email", "up_to": up_to})
    assert found.examples.filter(status=Example.Status.REJECTED).count() == 1


def test_list_comes_in_pages_at_a_fixed_cost(page, make_dataset, django_assert_max_num_queries):
    found = make_dataset(rows=120, is_approved=False)
    path, seen = f"{address('review', found.pk)}?mode=list", []
    page.get(path)
    while path:
        with django_assert_max_num_queries(16):
            text = text_of(page.get(path, headers=HTMX))
        seen += [int(pk) for pk in re.findall(r'id="row-(\d+)"', text)]
        more = re.search(r'hx-get="([^"]*cursor=[^"]*)"', text)
        path = more[1].replace("&amp;", "&") if more else ""
    assert seen == list(found.examples.order_by("pk").values_list("pk", flat=True))


def test_row_decided_in_the_list_is_drawn_anew(page, make_dataset):
    found = make_dataset(rows=2, is_approved=False)
    row = found.examples.first()
    data = {"action": "reject", "mode": "list", "status": "pending"}
    text = text_of(page.post(address("example", found.pk, row.pk), data, headers=HTMX))
    assert text.strip().startswith(f'<li class="example-row" id="row-{row.pk}"')
    assert "Rejected" in text


def test_filters_that_nobody_knows_show_more_rows_not_an_error(page, hills):
    response = page.get(address("review", hills.pk), {"status": "eaten", "finding": "x", "origin": "y", "example": "z"})
    assert response.status_code == 200
    assert "<strong>12</strong> rows match" in text_of(response)


# --- versions -----------------------------------------------------------------------------------------------


@pytest.fixture
def engine_model(db) -> ModelVersion:
    connection = Connection.objects.create(name="Here", kind=Connection.Kind.ENGINE)
    model = RegisteredModel.objects.create(slug="tiny", name="Tiny", connection=connection)
    return ModelVersion.objects.create(model=model, number=1, provider_model="tiny", source="tiny")


def make_job(version: DatasetVersion, base: ModelVersion, **fields) -> FineTuningJob:
    values = {"method": "lora_sft", "base": "tiny", "target": "tiny", "name": "Night run"} | fields
    return FineTuningJob.objects.create(dataset_version=version, base_version=base, **values)


def test_first_version_is_frozen_from_the_form(page, hills):
    form = {"validation": "20", "test": "0", "seed": "7", "notes": "Before the holidays"}
    response = page.post(address("versions", hills.pk), form)
    assert response["Location"] == address("version", hills.pk, 1)
    made = hills.versions.get()
    assert (made.seed, made.notes, made.shares["validation"]) == (7, "Before the holidays", 0.2)
    assert "Being frozen" in text_of(page.get(address("version", hills.pk, 1)))


@pytest.mark.parametrize("wrong", [{"validation": "90"}, {"seed": "-1"}, {"validation": "50", "test": "50"}])
def test_wrong_shares_are_refused_in_place(page, hills, wrong):
    form = {"validation": "10", "test": "0", "seed": "7", "notes": "Typed"} | wrong
    response = page.post(address("versions", hills.pk), form)
    assert response.status_code == 400
    assert "Typed" in text_of(response)
    assert not hills.versions.exists()


def test_too_few_rows_say_so(page, make_dataset):
    few = make_dataset(rows=2)
    response = page.post(address("versions", few.pk), {"validation": "10", "test": "0", "seed": "1"})
    assert response.status_code == 400
    assert "at least 10 approved rows" in text_of(response)


def test_version_shows_hash_splits_and_what_used_it(page, hills, frozen, engine_model):
    job = make_job(frozen, engine_model, status="succeeded")
    trained = ModelVersion.objects.create(model=engine_model.model, number=2, provider_model="tiny")
    Lineage.objects.create(
        version=trained,
        job=job,
        dataset_version=frozen,
        base_version=engine_model,
        method="lora_sft",
        withdrawn_at=timezone.now(),
        withdrawn_rows=3,
    )
    text = text_of(page.get(address("version", hills.pk, frozen.number)))
    assert frozen.content_hash in text
    assert "First look" in text
    assert "Night run" in text
    assert "tiny@2" in text
    assert "saw 3 withdrawn" in text


def test_version_in_every_state_has_a_page(page, hills):
    DatasetVersion.objects.create(dataset=hills, number=1, kind="chat", status="failed", error_message="No room.")
    DatasetVersion.objects.create(dataset=hills, number=2, kind="chat", status="freezing")
    DatasetVersion.objects.create(
        dataset=hills, number=3, kind="chat", status="ready", redacted_at=timezone.now(), redacted_rows=2, rows=5
    )
    assert "No room." in text_of(page.get(address("version", hills.pk, 1)))
    assert "hx-trigger" in text_of(page.get(address("version", hills.pk, 2)))
    assert "2 rows were taken out" in text_of(page.get(address("version", hills.pk, 3)))
    listed = text_of(page.get(address("versions", hills.pk)))
    assert all(word in listed for word in ("failed", "freezing", "redacted"))


def test_versions_cost_a_fixed_number_of_queries(page, hills, frozen, engine_model, django_assert_max_num_queries):
    for number in range(2, 30):
        DatasetVersion.objects.create(dataset=hills, number=number, kind="chat", status="ready")
        make_job(frozen, engine_model, name=f"Job {number}")
    page.get(address("list"))
    for path in (address("versions", hills.pk), address("version", hills.pk, 1)):
        with django_assert_max_num_queries(16):
            page.get(path)


def test_difference_names_rows_that_came_and_went(page, hills, frozen, curator):
    row = hills.examples.order_by("pk").first()
    services.edit_example(row, chat_content("How high is hill 0?", "Nobody has measured it."), user=curator)
    services.approve(hills.examples.filter(pk=row.pk), user=curator)
    fill(hills, 0, contents=[CONTENTS["chat"](55)])
    services.freeze_now(hills, user=curator)
    text = text_of(page.get(address("diff", hills.pk), {"old": 1, "new": 2}))
    assert "+2" in text
    assert "−1" in text
    assert "Nobody has measured it." in text
    assert "How high is hill 55?" in text


def test_difference_needs_two_versions(page, hills, frozen):
    assert page.get(address("diff", hills.pk)).status_code == 302
    assert page.get(address("diff", hills.pk), {"old": "x", "new": "y"}).status_code == 302


# --- from conversations -------------------------------------------------------------------------------------


@pytest.fixture
def told(bob, charlie) -> None:
    """Bob agreed and corrected an answer; Charlie did the same and never agreed."""
    User.objects.filter(pk=bob.pk).update(training_consent_at=timezone.now() - timedelta(days=1))
    for owner in (bob, charlie):
        talk = Conversation.objects.create(owner=owner, title="Hills", model="tiny")
        question = Message.objects.create(conversation=talk, role="user", content="How high?")
        answer = Message.objects.create(
            conversation=talk, parent=question, depth=1, role="assistant", content="Low.", finish_reason="stop"
        )
        Feedback.objects.create(message=answer, user=owner, rating=-1, tags=["wrong"])
        Correction.objects.create(message=answer, user=owner, content="High.")


def test_live_count_is_of_those_who_agreed(page, told):
    assert "<strong>1</strong> row now" in text_of(page.get(address("count"), {"kind": "chat"}))
    assert "<strong>0</strong> rows now" in text_of(page.get(address("count"), {"kind": "chat", "rating": "1"}))
    assert "field__error" in text_of(page.get(address("count"), {"kind": "chat", "since": "2026-02-31"}))
    assert "Only people who agreed" in text_of(page.get(address("from_conversations")))


def test_count_and_rows_can_be_of_some_people(page, told, alice, bob, charlie):
    User.objects.filter(pk=alice.pk).update(training_consent_at=timezone.now())
    listed = re.findall(r'<option value="(\d+)">(\w+)</option>', text_of(page.get(address("from_conversations"))))
    names = [name for _, name in listed]
    assert {"alice", "bob"} <= set(names) and "charlie" not in names
    assert "<strong>1</strong> row now" in text_of(page.get(address("count"), {"kind": "chat", "people": [bob.pk]}))
    assert "<strong>0</strong> rows now" in text_of(page.get(address("count"), {"kind": "chat", "people": [alice.pk]}))
    assert "field__error" in text_of(page.get(address("count"), {"kind": "chat", "people": [charlie.pk]}))
    page.post(address("from_conversations"), {"kind": "chat", "into": "new", "name": "Bob's", "people": [bob.pk]})
    assert DatasetImport.objects.get().filters["people"] == [bob.pk]


def test_rows_are_built_into_a_new_dataset(page, told):
    response = page.post(address("from_conversations"), {"kind": "chat", "into": "new", "name": "Corrections"})
    item = DatasetImport.objects.get()
    assert response["Location"] == address("import", item.dataset_id, item.pk)
    assert (item.dataset.name, item.source, item.is_approved) == ("Corrections", "conversations", False)


def test_rows_are_built_into_a_dataset_that_is_there(page, told, hills):
    response = page.post(address("from_conversations"), {"kind": "chat", "into": str(hills.pk)})
    assert response.status_code == 302
    assert DatasetImport.objects.get().dataset == hills


def test_refused_build_keeps_what_was_chosen(page, told, make_dataset):
    make_dataset("Taken")
    form = {"kind": "kto", "into": "new", "name": "Taken", "tags": ["wrong"], "rating": "-1"}
    response = page.post(address("from_conversations"), form)
    assert response.status_code == 400
    text = text_of(response)
    assert 'value="Taken"' in text
    assert re.search(r'value="kto" checked', text)
    assert re.search(r'value="wrong"[^>]*checked', text)
    assert not DatasetImport.objects.exists()
