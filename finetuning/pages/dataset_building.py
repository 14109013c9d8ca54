"""The page that builds rows from conversations: filters with a live count, and the start of the import."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from chat.errors import ChatError, InvalidError
from chat.feedback import TAGS
from chat.models import Feedback
from finetuning import datasets as services
from finetuning.conversations.examples import agreeing_people, build_dataset, count_rows
from finetuning.conversations.filters import CHAT, KTO, PREFERENCE, Filters
from finetuning.models import Dataset
from finetuning.pages.doors import curators_only
from models_hub.models import RegisteredModel

KINDS = (
    (CHAT, "Good and corrected answers", "To imitate: answers rated good, and the corrections people wrote."),
    (
        PREFERENCE,
        "Preference pairs",
        "Better against worse: a correction beside its original, a chosen answer beside the others.",
    ),
    (KTO, "Rated answers", "Every answer with a thumb up or down."),
)
NEW = "new"


class FilterForm(forms.Form):
    kind = forms.ChoiceField(choices=[(value, title) for value, title, _ in KINDS], initial=CHAT)
    rating = forms.TypedChoiceField(
        required=False,
        coerce=int,
        empty_value=None,
        choices=[
            ("", "Whatever the rating"),
            *((value, f"Rated {name.lower()}") for value, name in Feedback.Rating.choices),
        ],
    )
    corrected = forms.BooleanField(required=False, label="Only answers that somebody corrected")
    model = forms.ChoiceField(required=False)
    version = forms.IntegerField(required=False, min_value=1, max_value=2**31, help_text="A number. Empty: all.")
    since = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}))
    people = forms.ModelMultipleChoiceField(
        required=False,
        queryset=None,
        help_text="Those who agreed. None chosen: all of them.",
        widget=forms.SelectMultiple(attrs={"size": 4}),
    )
    tags = forms.MultipleChoiceField(
        required=False, choices=list(TAGS.items()), label="Tags", widget=forms.CheckboxSelectMultiple
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, label_suffix="", **kwargs)
        models = RegisteredModel.objects.filter(task=RegisteredModel.Task.CHAT).order_by("name")
        self.fields["people"].queryset = agreeing_people()
        self.fields["model"].choices = [("", "Any model"), *models.values_list("slug", "name")]

    def to_filters(self) -> Filters:
        """Raises InvalidError."""
        values = self.cleaned_data
        return Filters(
            kind=values["kind"],
            rating=values["rating"],
            corrected=values["corrected"] or None,
            model=values["model"] or None,
            version=values["version"],
            since=values["since"],
            until=values["until"],
            tags=tuple(values["tags"]),
            people=tuple(person.pk for person in values["people"]),
        ).check()


@require_http_methods(["GET", "HEAD", "POST"])
@curators_only
def build(request: HttpRequest) -> HttpResponse:
    """A POST makes the import, whose page comes next."""
    if request.method != "POST":
        return _render(request, FilterForm(initial={"kind": CHAT}), into=request.GET.get("dataset", NEW))
    form = FilterForm(request.POST)
    into, name = request.POST.get("into", NEW), request.POST.get("name", "")
    error = ""
    if form.is_valid():
        try:
            target = name if into == NEW else _get_target(request, into)
            made = build_dataset(target, form.to_filters(), user=request.user)
        except ChatError as refusal:
            error = refusal.message
        else:
            return redirect("datasets:import", made.dataset_id, made.pk)
    return _render(request, form, into=into, name=name, error=error, status=400)


def _get_target(request: HttpRequest, into: str) -> Dataset:
    if not into.isascii() or not into.isdigit() or len(into) > 18:
        raise InvalidError("Choose the dataset that the rows go into.")
    return services.get_dataset(int(into), user=request.user)


def _render(
    request: HttpRequest, form: FilterForm, *, into: str, name: str = "", error: str = "", status: int = 200
) -> HttpResponse:
    datasets = Dataset.objects.filter(deleted_at=None, kind__in=["", *(value for value, _, _ in KINDS)])
    context = {
        "form": form,
        "filter_fields": [form[field] for field in ("rating", "model", "version", "since", "until", "people")],
        "kinds": KINDS,
        "chosen_kind": form["kind"].value(),
        "targets": datasets.order_by("name").values_list("pk", "name", "kind")[:500],
        "into": into,
        "name": name,
        "error": error,
    }
    return render(request, "finetuning/dataset_conversations.html", context, status=status)


@require_safe
@curators_only
def count(request: HttpRequest) -> HttpResponse:
    """Fragment: how many rows the filters give now."""
    form = FilterForm(request.GET)
    rows, error = None, ""
    try:
        if form.is_valid():
            rows = count_rows(form.to_filters(), user=request.user)
        else:
            error = " ".join(message for messages in form.errors.values() for message in messages)
    except InvalidError as refusal:
        error = refusal.message
    return render(request, "finetuning/_dataset_count.html", {"rows": rows, "error": error})
