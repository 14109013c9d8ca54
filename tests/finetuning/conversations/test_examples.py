"""What becomes of conversations: only what people allowed, as it was said, in the formats that training reads."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.utils import timezone

from chat import feedback
from chat.errors import ForbiddenError, InvalidError
from chat.models import Conversation, Message
from finetuning.conversations.examples import Filters, build_dataset, count_rows, iterate_drafts, trainable_messages
from finetuning.datasets.importing import run_import
from finetuning.datasets.services import create_dataset
from finetuning.formats import ChatExample, check_example
from finetuning.models import Dataset, DatasetImport, Example
from models_hub.models import Connection, ModelVersion, RegisteredModel
from tests.chat.conftest import make_conversation, make_message

KINDS = ("chat", "preference", "kto")


@pytest.fixture
def agreed(alice):
    alice.training_consent_at = timezone.now()
    alice.save(update_fields=["training_consent_at"])
    return alice


@pytest.fixture
def talk(agreed) -> Conversation:
    """Two turns; the last reply is rated, corrected, and called better than another one."""
    talk = make_conversation(agreed, "Rivers", "Which river is longest?", "The Nile.", "And in Europe?", "The Rhine.")
    judge(talk.current_leaf)
    return talk


def judge(reply: Message, *, correction: str = "The Volga.") -> Message:
    other = make_message(reply.conversation, "The Danube, I think.", role="assistant", parent=reply.parent)
    feedback.rate(reply, rating=1, tags=["style"])
    if correction:
        feedback.correct(reply, correction)
    feedback.choose(reply)
    return other


def make_version(slug: str = "tiny", number: int = 1, **fields) -> ModelVersion:
    connection, _ = Connection.objects.get_or_create(name="Here", defaults={"kind": Connection.Kind.ENGINE})
    model, _ = RegisteredModel.objects.get_or_create(slug=slug, defaults={"connection": connection} | fields)
    return ModelVersion.objects.create(model=model, number=number, provider_model=slug)


def rows(kind: str = "chat", **filters) -> list[dict]:
    """The rows as their files hold them, after the check that an import makes of them."""
    drafts = list(iterate_drafts(Filters(kind=kind, **filters)))
    for draft in drafts:
        example, problems = check_example(kind, draft.example.to_dict())
        assert (example, problems) == (draft.example, ())
    return [draft.example.to_dict() for draft in drafts]


def counted(admin_user, **filters) -> int:
    return count_rows(Filters(**filters), user=admin_user)


# --- what becomes of an answer ----------------------------------------------------------------------------------------

QUESTION = [
    {"role": "user", "content": "Which river is longest?"},
    {"role": "assistant", "content": "The Nile."},
    {"role": "user", "content": "And in Europe?"},
]
READ_ONLY = [QUESTION[0], QUESTION[1] | {"weight": 0}, QUESTION[2]]


def answer(content: str) -> list[dict]:
    return [{"role": "assistant", "content": content}]


def test_correction_takes_the_replys_place_and_earlier_answers_are_not_learned(talk):
    assert rows() == [{"messages": [*READ_ONLY, *answer("The Volga.")]}]


def test_good_answer_is_learned_as_it_is(agreed):
    talk = make_conversation(agreed, "Rivers", "Which river is longest?", "The Nile.", "And in Europe?", "The Volga.")
    feedback.rate(talk.current_leaf, rating=1)
    assert rows() == [{"messages": [*READ_ONLY, *answer("The Volga.")]}]


def test_bad_answer_is_no_example(agreed):
    talk = make_conversation(agreed, "Rivers", "Which river is longest?", "The Nile.")
    feedback.rate(talk.current_leaf, rating=-1)
    assert rows() == []


def test_pairs_come_from_corrections_and_from_choices(talk):
    assert rows("preference") == [
        {"prompt": QUESTION, "chosen": answer("The Volga."), "rejected": answer("The Rhine.")},
        {"prompt": QUESTION, "chosen": answer("The Rhine."), "rejected": answer("The Danube, I think.")},
    ]


def test_choice_beats_every_other_answer_but_one_that_says_the_same(agreed):
    talk = make_conversation(agreed, "Rivers", "Which?", "The Nile.")
    reply = talk.current_leaf
    for content in ("The Amazon.", "The Nile.", "The Congo."):
        make_message(talk, content, role="assistant", parent=reply.parent)
    feedback.choose(reply)
    assert [row["rejected"][0]["content"] for row in rows("preference")] == ["The Amazon.", "The Congo."]


@pytest.mark.parametrize(("rating", "label"), [(1, True), (-1, False)])
def test_thumbs_become_labels(agreed, rating, label):
    talk = make_conversation(agreed, "Rivers", "Which?", "The Nile.")
    feedback.rate(talk.current_leaf, rating=rating)
    prompt = [{"role": "user", "content": "Which?"}]
    assert rows("kto") == [{"prompt": prompt, "completion": answer("The Nile."), "label": label}]


def test_row_keeps_where_it_comes_from(talk, agreed):
    version = make_version()
    Message.objects.filter(id=talk.current_leaf_id).update(version=version)
    for kind in KINDS:
        for draft in iterate_drafts(Filters(kind=kind)):
            assert (draft.contributor_id, draft.conversation_id, draft.group) == (agreed.id, talk.id, str(talk.id))
            assert (draft.message_id, draft.model_version_id) == (talk.current_leaf_id, version.id)
    origins = [(kind, draft.origin) for kind in KINDS for draft in iterate_drafts(Filters(kind=kind))]
    assert origins == [
        ("chat", Example.Origin.CORRECTION),
        ("preference", Example.Origin.CORRECTION),
        ("preference", Example.Origin.CHOICE),
        ("kto", Example.Origin.RATING),
    ]


def test_system_prompt_is_the_one_that_was_used(talk):
    version = make_version()
    version.system_prompt = "Of the version."
    version.save(update_fields=["system_prompt"])
    reply = Message.objects.filter(id=talk.current_leaf_id)
    reply.update(version=version)
    assert rows()[0]["messages"][0] == {"role": "system", "content": "Of the version."}
    Conversation.objects.filter(id=talk.id).update(system_prompt="Of the conversation.")
    assert rows()[0]["messages"][0]["content"] == "Of the conversation."
    reply.update(options={"system_prompt": "Of the message."})
    assert rows()[0]["messages"][0]["content"] == "Of the message."
    assert rows("preference")[0]["prompt"][0] == rows("kto")[0]["prompt"][0] == rows()[0]["messages"][0]


def test_no_more_goes_along_than_went_along_in_chat(agreed, monkeypatch):
    talk = make_conversation(agreed, "Long", *(f"Text {number}" for number in range(20)))
    feedback.rate(talk.current_leaf, rating=1)
    assert [turn["content"] for turn in rows()[0]["messages"]] == [f"Text {number}" for number in range(8, 20)]
    Message.objects.filter(id=talk.current_leaf_id).update(messages_left_out=14)
    assert [turn["content"] for turn in rows()[0]["messages"]] == [f"Text {number}" for number in range(14, 20)]
    Message.objects.filter(id=talk.current_leaf_id).update(messages_left_out=18)
    assert [turn["content"] for turn in rows()[0]["messages"]] == ["Text 18", "Text 19"]


def test_branch_is_the_replys_own(talk, agreed):
    edited = make_message(talk, "And in Asia?", parent=talk.current_leaf.parent.parent)
    reply = make_message(talk, "The Yangtze.", role="assistant", parent=edited)
    feedback.rate(reply, rating=1)
    assert rows(corrected=False) == [
        {"messages": [*READ_ONLY[:2], {"role": "user", "content": "And in Asia?"}, *answer("The Yangtze.")]}
    ]


def test_question_that_got_no_answer_is_put_together_with_the_next(agreed):
    talk = make_conversation(agreed, "Rivers", "Which?")
    silent = make_message(talk, "", role="assistant", parent=talk.current_leaf, status="failed")
    again = make_message(talk, "Please.", parent=silent)
    reply = make_message(talk, "The Nile.", role="assistant", parent=again)
    feedback.rate(reply, rating=1)
    assert rows() == [{"messages": [{"role": "user", "content": "Which?\n\nPlease."}, *answer("The Nile.")]}]


# --- what is never used -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoilt",
    [
        {"status": "failed"},
        {"status": "interrupted"},
        {"status": "pending"},
        {"content": ""},
        {"labels": [{"label": "positive", "score": 0.9}]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_reply_that_is_none_is_never_used(talk, spoilt, admin_user):
    Message.objects.filter(conversation=talk, role="assistant").update(**spoilt)
    for kind in KINDS:
        assert rows(kind) == []
        assert counted(admin_user, kind=kind) == 0


def test_classifiers_words_are_never_used(talk):
    version = make_version("labels", task=RegisteredModel.Task.CLASSIFICATION)
    Message.objects.filter(conversation=talk).update(version=version)
    assert [rows(kind) for kind in KINDS] == [[], [], []]


@pytest.mark.parametrize("cut", [{"status": "stopped", "finish_reason": "cancelled"}, {"finish_reason": "length"}])
def test_answer_that_breaks_off_is_not_imitated(agreed, cut):
    talk = make_conversation(agreed, "Rivers", "Which?", "The Nile is")
    Message.objects.filter(id=talk.current_leaf_id).update(**cut)
    feedback.rate(talk.current_leaf, rating=1)
    assert rows() == rows("kto") == []
    feedback.correct(talk.current_leaf, "The Nile is longest.")
    assert rows()[0]["messages"][-1]["content"] == "The Nile is longest."
    assert rows("preference")[0]["rejected"] == answer("The Nile is")


def no_consent(talk):
    talk.owner.training_consent_at = None
    talk.owner.save(update_fields=["training_consent_at"])


def excluded(talk):
    Conversation.objects.filter(id=talk.id).update(is_excluded_from_training=True)


def deleted(talk):
    Conversation.objects.filter(id=talk.id).update(deleted_at=timezone.now())


@pytest.mark.parametrize("withdraw", [no_consent, excluded, deleted])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_not_allowed_is_not_used(talk, admin_user, withdraw, kind):
    assert counted(admin_user, kind=kind) == len(rows(kind)) > 0
    withdraw(talk)
    assert counted(admin_user, kind=kind) == len(rows(kind)) == 0
    assert not trainable_messages().exists()


def test_nobody_has_agreed_by_himself(alice):
    assert alice.training_consent_at is None


def test_consent_that_ends_in_the_middle_of_a_build_ends_it(agreed, monkeypatch):
    monkeypatch.setattr("finetuning.conversations.examples.in_batches", lambda items: ([item] for item in items))
    for number in range(3):
        talk = make_conversation(agreed, "Rivers", f"Question {number}?", "Yes.")
        feedback.rate(talk.current_leaf, rating=1)
    drafts = iterate_drafts(Filters())
    assert next(drafts).line == 1
    no_consent(talk)
    assert list(drafts) == []


# --- selections -------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(agreed, bob) -> dict[str, Conversation]:
    """One rated or corrected reply in each."""
    bob.training_consent_at = timezone.now()
    bob.save(update_fields=["training_consent_at"])
    second = make_version("tiny", 2)
    wanted = {
        "good": (agreed, 1, "", make_version("other"), ["style"], 1),
        "bad": (agreed, -1, "", second, ["wrong", "off_topic"], 2),
        "corrected": (agreed, -1, "Better.", second, ["incomplete"], 3),
        "bob's": (bob, 1, "", None, [], 4),
    }
    talks = {}
    for name, (owner, rating, correction, version, tags, day) in wanted.items():
        talk = talks[name] = make_conversation(owner, name, f"Say {name}.", f"{name}!")
        moment = datetime(2026, 3, day, 12, tzinfo=UTC)
        Message.objects.filter(id=talk.current_leaf_id).update(version=version, created_at=moment)
        feedback.rate(talk.current_leaf, rating=rating, tags=tags)
        if correction:
            feedback.correct(talk.current_leaf, correction)
    return talks


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["good", "bad", "corrected", "bob's"]),
        ({"rating": 1}, ["good", "bob's"]),
        ({"rating": -1}, ["bad", "corrected"]),
        ({"corrected": True}, ["corrected"]),
        ({"corrected": False, "rating": -1}, ["bad"]),
        ({"model": "tiny"}, ["bad", "corrected"]),
        ({"model": "tiny", "version": 2}, ["bad", "corrected"]),
        ({"model": "tiny", "version": 1}, []),
        ({"model": "nobody"}, []),
        ({"tags": ("style", "incomplete")}, ["good", "corrected"]),
        ({"tags": ("off_topic",)}, ["bad"]),
        ({"tags": ("language",)}, []),
        ({"since": "2026-03-03"}, ["corrected", "bob's"]),
        ({"until": "2026-03-02"}, ["good", "bad"]),
        ({"since": "2026-03-02", "until": "2026-03-03"}, ["bad", "corrected"]),
    ],
    ids=str,
)
def test_filters_find_what_they_say(many, admin_user, filters, found):
    chosen = Filters.from_dict({"kind": "kto"} | filters)
    drafts = list(iterate_drafts(chosen))
    titles = dict(Conversation.objects.values_list("id", "title"))
    assert [titles[draft.conversation_id] for draft in drafts] == found
    assert count_rows(chosen, user=admin_user) == len(found)


def test_people_can_be_chosen(many, agreed, bob):
    assert len(rows("kto", people=(bob.id,))) == 1
    assert len(rows("kto", people=(bob.id, agreed.id))) == 4
    assert rows("kto", people=(0,)) == []


def test_filters_come_back_from_json_as_they_were():
    data = {"kind": "kto", "rating": -1, "corrected": False, "since": "2026-03-01", "tags": ["wrong"], "people": [3]}
    assert Filters.from_dict(data).to_dict() == data | {"tags": ("wrong",), "people": (3,)}
    assert Filters.from_dict({"rating": None, "tags": [], "model": ""}) == Filters()


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "text"},
        {"rating": 0},
        {"rating": True},
        {"corrected": "yes"},
        {"version": "1"},
        {"since": "yesterday"},
        {"since": "2026-03-02", "until": "2026-03-01"},
        {"tags": ["rude"]},
        {"tags": [7]},
        {"people": ["alice"]},
        {"people": 5},
        {"people": list(range(100_000))},
        {"tags": 5},
        {"tags": [["wrong"]]},
        {"since": 5},
        {"since": True},
        {"until": "9999-12-31"},
        {"model": {"slug": "x"}},
        {"colour": "red"},
    ],
    ids=lambda wrong: str(wrong)[:40],
)
def test_wrong_filter_is_refused(wrong):
    with pytest.raises(InvalidError):
        Filters.from_dict(wrong)


def test_count_takes_few_queries_however_much_there_is(many, admin_user, django_assert_max_num_queries):
    for kind in KINDS:
        with django_assert_max_num_queries(2):
            counted(admin_user, kind=kind)


# --- datasets ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch) -> list[tuple]:
    calls: list[tuple] = []
    monkeypatch.setattr("finetuning.conversations.examples.send", lambda *call: calls.append(call))
    return calls


@pytest.mark.parametrize("who", ["bob", "charlie"])
def test_who_is_no_curator_counts_and_builds_nothing(talk, who, request):
    with pytest.raises(ForbiddenError):
        count_rows(Filters(), user=request.getfixturevalue(who))
    with pytest.raises(ForbiddenError):
        build_dataset("Rivers", Filters(), user=request.getfixturevalue(who))
    assert not Dataset.objects.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_dataset_is_built_and_waits_for_review(talk, admin_user, sent, kind):
    source_import = build_dataset("Rivers", Filters(kind=kind), user=admin_user)
    assert (source_import.status, source_import.source) == ("queued", "conversations")
    assert sent == [("run_import", source_import.pk)]
    run_import(source_import.pk)
    source_import.refresh_from_db()
    assert (source_import.status, source_import.error_message) == ("succeeded", "")
    assert source_import.dataset.kind == kind
    stored = list(Example.objects.filter(dataset=source_import.dataset).order_by("id"))
    assert [example.content for example in stored] == rows(kind)
    assert {(example.status, example.contributor_id) for example in stored} == {("pending", talk.owner_id)}


def test_answer_is_stored_once_however_often_it_is_built(talk, admin_user, sent):
    first = build_dataset("Rivers", Filters(), user=admin_user)
    run_import(first.pk)
    again = build_dataset(first.dataset, Filters(), user=admin_user)
    run_import(again.pk)
    again.refresh_from_db()
    assert (again.rows_added, again.duplicates) == (0, 1)
    assert Example.objects.count() == 1


def test_nothing_to_build_is_said_at_once(agreed, admin_user):
    with pytest.raises(InvalidError, match="No reply fits"):
        build_dataset("Empty", Filters(), user=admin_user)
    assert not Dataset.objects.exists() and not DatasetImport.objects.exists()


def test_dataset_of_another_kind_takes_none_of_it(talk, admin_user):
    pairs = create_dataset("Pairs", user=admin_user, kind="preference")
    with pytest.raises(InvalidError, match="another dataset"):
        build_dataset(pairs, Filters(kind="chat"), user=admin_user)
    assert not DatasetImport.objects.exists()


def test_examples_are_of_the_formats_own_types(talk):
    (draft,) = iterate_drafts(Filters())
    assert isinstance(draft.example, ChatExample)
    assert draft.example.content_hash() == ChatExample.from_dict(draft.example.to_dict()).content_hash()
    assert draft.line == 1
