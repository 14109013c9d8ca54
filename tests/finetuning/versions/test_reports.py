"""What is shown of versions: where they come from, their figures, their ratings, and two of them side by side."""

from __future__ import annotations

import pytest

from chat.errors import NotFoundError
from finetuning.models import Evaluation
from finetuning.versions import promote
from finetuning.versions.reports import compare, get_report, list_reports
from models_hub import services
from tests.finetuning.version_support import add_evaluation, add_trained, make_trained_model, rate

pytestmark = pytest.mark.django_db


@pytest.fixture
def model(db):
    return make_trained_model()


def answer(prompt, tuned: str, base: str = "No idea.") -> dict:
    return {"prompt": prompt, "source": "fixed", "base": base, "tuned": tuned}


def test_versions_come_newest_first_with_what_is_known_of_them(model):
    add_trained(model)
    newest, base = list_reports(model)
    assert (newest.version.number, base.version.number) == (2, 1)
    assert (newest.aliases, base.aliases) == ([], ["production"])
    assert newest.lineage.base_version == base.version
    assert base.lineage is None and base.evaluation is None


def test_ratings_are_counted_for_the_version_that_wrote_the_reply(model, alice, bob):
    trained = add_trained(model)
    rate(trained, alice, 1, 1, -1, corrections=1)
    rate(trained, bob, 1)
    rate(model.versions.get(number=1), bob, -1, -1)
    newest, base = (report.ratings for report in list_reports(model))
    assert (newest.good, newest.bad, newest.corrections, newest.replies) == (3, 1, 1, 4)
    assert (base.good, base.bad, base.corrections, base.replies) == (0, 2, 0, 2)
    assert (newest.approval, base.approval) == (0.75, 0.0)
    assert get_report(model, 2).ratings == newest


def test_many_versions_cost_as_many_queries_as_few(model, alice, django_assert_num_queries):
    for _ in range(6):
        rate(add_trained(model), alice, 1)
    with django_assert_num_queries(7):
        assert len(list_reports(model)) == 7


def test_figures_stand_beside_the_bases_and_say_which_is_better(model):
    report = get_report(model, add_trained(model).number)
    figures = {measure.name: measure for measure in report.measures}
    loss = figures["Loss"]
    assert (loss.before, loss.after, loss.is_better) == (2.25, 1.5, True)
    assert figures["General set: Loss"].is_better is False
    ends = figures["Answers that end by themselves"]
    assert (ends.before, ends.after, ends.is_share, ends.is_better) == (0.5, 1.0, True, True)


def test_a_failed_evaluation_does_not_hide_an_earlier_one(model):
    trained = add_trained(model)
    Evaluation.objects.create(version=trained, status=Evaluation.Status.FAILED, error_message="Out of memory.")
    assert get_report(model, 2).evaluation.status == Evaluation.Status.COMPLETE
    later = add_evaluation(trained, after={"eval_loss": 1.0})
    assert get_report(model, 2).evaluation == later


def test_labels_come_with_their_confusion(model):
    metrics = {
        "accuracy": 0.75,
        "macro_f1": 0.7,
        "per_class": {
            "good": {"precision": 0.8, "recall": 0.9, "f1": 0.85, "support": 10},
            "bad": {"precision": 0.6, "recall": 0.5, "f1": 0.55, "support": 4},
        },
        "confusion": [[9, 1], [2, 2]],
        "labels": ["good", "bad"],
    }
    report = get_report(model, add_trained(model, after=metrics).number)
    assert [(row.name, row.support, row.called) for row in report.labels] == [("good", 10, [9, 1]), ("bad", 4, [2, 2])]
    accuracy = next(measure for measure in report.measures if measure.name == "Accuracy")
    assert (accuracy.before, accuracy.after, accuracy.is_share) == (None, 0.75, True)


def test_two_versions_stand_side_by_side_with_their_answers(model):
    turns = [{"role": "user", "content": "Who are you?"}]
    older = add_trained(model, answers=[answer("Where?", "Pier 3"), answer("When?", "At noon")])
    newer = add_trained(model, after={"eval_loss": 1.25}, answers=[answer("Where?", "Pier 4"), answer(turns, "A buoy")])
    found = compare(newer, older)
    assert (found.left.version, found.right.version) == (older, newer)
    loss = next(measure for measure in found.measures if measure.name == "Loss")
    assert (loss.before, loss.after, loss.is_better) == (1.5, 1.25, True)
    answers = {row.prompt: (row.base, row.left, row.right) for row in found.answers}
    assert answers == {
        "Where?": ("No idea.", "Pier 3", "Pier 4"),
        "Who are you?": ("No idea.", "", "A buoy"),
        "When?": ("No idea.", "At noon", ""),
    }


def test_a_version_beside_its_base_shows_what_was_measured_of_the_base(model):
    trained = add_trained(model, answers=[answer("Where?", "Pier 3")])
    base = model.versions.get(number=1)
    found = compare(trained, base)
    loss = next(measure for measure in found.measures if measure.name == "Loss")
    assert (loss.before, loss.after, loss.is_better) == (2.25, 1.5, True)
    assert [(row.left, row.right) for row in found.answers] == [("No idea.", "Pier 3")]
    turned = compare(base, trained)
    loss = next(measure for measure in turned.measures if measure.name == "Loss")
    assert (loss.before, loss.after, loss.is_better) == (1.5, 2.25, False)
    assert [(row.left, row.right) for row in turned.answers] == [("Pier 3", "No idea.")]


def test_a_version_beside_its_trained_base_was_held_against_the_same_rows(model):
    older = add_trained(model)
    newer = add_trained(model, base=older)
    assert compare(newer, older).is_same_data
    assert not compare(newer, add_trained(model)).is_same_data


def test_a_version_is_compared_with_production_or_else_with_its_base(model):
    older, newer = add_trained(model), add_trained(model)
    promote(older, actor=None, reason="Better.")
    assert compare(newer).left.version == older
    assert compare(older).left.version.number == 1
    with pytest.raises(NotFoundError):
        compare(services.add_version(make_trained_model("other")).model.aliases.get().version)


def test_another_models_version_is_not_found(model):
    make_trained_model("other")
    add_trained(model)
    with pytest.raises(NotFoundError):
        get_report(model, 9)
