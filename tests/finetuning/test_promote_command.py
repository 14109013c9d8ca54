"""`manage.py promote`: the gate of the pages, from the terminal."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command

from models_hub.models import AliasEvent
from tests.finetuning.version_support import add_trained, make_trained_model

pytestmark = pytest.mark.django_db


@pytest.fixture
def model(db):
    return make_trained_model()


def test_it_promotes_and_prints_ids_and_the_final_state(model, capsys):
    trained = add_trained(model)
    call_command("promote", model.slug, 2, reason="Better.")
    assert model.aliases.get().version == trained
    event = AliasEvent.objects.first()
    assert capsys.readouterr().out.splitlines() == [
        f"harbour-helper@production: version 2 (id {trained.pk}), before: 1.",
        f"event {event.pk}: Better.",
    ]


@pytest.mark.parametrize(
    ("slug", "number", "reason", "sentence"),
    [
        ("harbour-helper", 2, "Better.", "not been evaluated"),
        ("harbour-helper", 9, "Better.", "has no version 9"),
        ("nobody", 1, "Better.", "There is no model"),
        ("harbour-helper", 1, "Better.", "already"),
        ("harbour-helper", 2, " ", "reason"),
    ],
)
def test_what_is_refused_says_why_and_changes_nothing(model, slug, number, reason, sentence):
    add_trained(model, is_evaluated=False)
    with pytest.raises(CommandError, match=sentence):
        call_command("promote", slug, number, reason=reason)
    assert model.aliases.get().version.number == 1
    assert AliasEvent.objects.count() == 1
