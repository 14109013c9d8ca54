"""Examples out of people's conversations: which may be used, which fit a selection, and how each becomes a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TypeVar

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, TextField
from django.db.models.functions import Cast, Length

from accounts.models import User
from chat.errors import InvalidError
from chat.models import Choice, Conversation, Correction, Feedback, Message
from chat.replies.prompt import system_prompt_of, take_context
from config.app_settings import get_settings
from finetuning import formats
from finetuning.access import check_curator
from finetuning.conversations.filters import KTO, PREFERENCE, Filters
from finetuning.datasets.dispatch import send
from finetuning.datasets.drafts import Draft, check_kind
from finetuning.datasets.polite import in_batches
from finetuning.datasets.services import create_dataset
from finetuning.models import (
    Dataset,
    DatasetImport,
    DatasetVersion,
    EvaluationContributor,
    Example,
    VersionContributor,
)
from models_hub.base import FinishReason, Role
from models_hub.models import RegisteredModel

Row = TypeVar("Row", Example, VersionContributor, EvaluationContributor)
Origin = Example.Origin

# An answer that somebody cut off, or that ended at its longest, would teach the model to break off.
WHOLE = Q(status=Message.Status.COMPLETE, finish_reason__in=["", FinishReason.STOP])

# Asked so, a database begins with the few that are corrected instead of with all messages there are.
_CORRECTED = Correction.objects.values("message")


def _allowed(conversation: str = "") -> Q:
    """The one rule of what may be trained on: its owner agreed, did not exclude it, and did not delete it."""
    rule = {"owner__training_consent_at__isnull": False, "is_excluded_from_training": False, "deleted_at": None}
    return Q(**{conversation + name: value for name, value in rule.items()})


def consented_conversations() -> QuerySet[Conversation]:
    return Conversation.objects.filter(_allowed())


def agreeing_people() -> QuerySet[User]:
    """Who agreed to training, by name."""
    return User.objects.filter(training_consent_at__isnull=False).order_by("username")


def withdrawn_rows(rows: QuerySet[Row]) -> QuerySet[Row]:
    """Of rows that keep a contributor and a conversation, those that may no longer be held by the rule above."""
    agreeing = agreeing_people().order_by().values("id")
    theirs = rows.filter(contributor_id__isnull=False)
    still_allowed = Q(conversation_id__in=consented_conversations().values("id"))
    still_allowed |= Q(conversation_id=None, contributor_id__in=agreeing)
    return theirs.exclude(still_allowed)


def trainable_messages() -> QuerySet[Message]:
    """The replies one may learn from: of a model that converses, with words, neither failed nor interrupted."""
    return Message.objects.filter(
        _allowed("conversation__"),
        Q(version=None) | Q(version__model__task=RegisteredModel.Task.CHAT),
        role=Role.ASSISTANT,
        parent__role=Role.USER,
        status__in=[Message.Status.COMPLETE, Message.Status.STOPPED],
        labels__isnull=True,
    ).exclude(content="")


def past_questions(*, not_of: DatasetVersion, longest: int, limit: int) -> list[Message]:
    """What people who allow it began their newest conversations with, apart from those a version has learned from."""
    learned = VersionContributor.objects.filter(version=not_of, conversation_id__isnull=False).values("conversation_id")
    questions = Message.objects.filter(_allowed("conversation__"), role=Role.USER, depth=0).exclude(content="")
    questions = questions.exclude(conversation_id__in=learned)
    questions = questions.annotate(size=Length("content")).filter(size__lte=longest)
    return list(questions.select_related("conversation").order_by("-created_at", "-pk")[:limit])


def count_rows(filters: Filters, *, user: User) -> int:
    """How many rows a selection gives, before those a dataset holds already. Raises ForbiddenError, InvalidError."""
    check_curator(user)
    return sum(source.rows.count() for source in _sources(filters.check()))


def build_dataset(name_or_dataset: str | Dataset, filters: Filters, *, user: User) -> DatasetImport:
    """An import that a worker reads next; its rows wait for review. Raises ForbiddenError, InvalidError."""
    if not count_rows(filters, user=user):
        raise InvalidError("No reply fits these filters. Widen them, or ask people to rate and correct answers first.")
    with transaction.atomic():
        if isinstance(name_or_dataset, str):
            dataset = create_dataset(name_or_dataset, user=user, kind=filters.kind)
        else:
            dataset = name_or_dataset
            check_kind(dataset, filters.kind)
        source_import = DatasetImport.objects.create(
            dataset=dataset,
            source=DatasetImport.Source.CONVERSATIONS,
            status=DatasetImport.Status.QUEUED,
            filters=filters.to_dict(),
            is_approved=False,
            created_by=user,
        )
        send("run_import", source_import.pk)
    return source_import


def iterate_drafts(filters: Filters) -> Iterator[Draft]:
    """The rows of a selection, always in the same order.

    Each batch asks anew whether it may be used: somebody may withdraw while this goes on.
    """
    line = 0
    for source in _sources(filters.check()):
        ids = source.rows.order_by("created_at", "id").values_list("id", flat=True)
        for batch in in_batches(list(ids)):
            found = source.rows.select_related(*source.related).in_bulk(batch)
            for message_id in batch:
                line += 1
                if message_id in found:
                    yield _to_draft(source, found[message_id], line)


@dataclass(frozen=True, slots=True)
class _Source:
    """Replies of which each gives one row. `subject` is the reply that the row is about."""

    origin: Origin
    rows: QuerySet[Message]
    make: Callable[[Message], formats.Example]
    related: tuple[str, ...]
    subject: Callable[[Message], Message] = lambda reply: reply


def _sources(filters: Filters) -> list[_Source]:
    replies = _matching(filters)
    corrected = replies.filter(id__in=_CORRECTED)
    plain = ("conversation", "parent", "version")
    if filters.kind == KTO:
        rated = replies.filter(WHOLE, feedback__rating__in=Feedback.Rating.values)
        return [_Source(Origin.RATING, rated, _kto_example, (*plain, "feedback"))]
    if filters.kind == PREFERENCE:
        pairs = (*plain, "parent__choice__chosen")
        return [
            _Source(Origin.CORRECTION, corrected, _correction_pair, (*plain, "correction")),
            _Source(Origin.CHOICE, _rejected(replies), _choice_pair, pairs, lambda reply: reply.parent.choice.chosen),
        ]
    good = replies.filter(WHOLE, correction=None, feedback__rating=Feedback.Rating.GOOD)
    return [
        _Source(Origin.CORRECTION, corrected, _corrected_answer, (*plain, "correction")),
        _Source(Origin.ANSWER, good, _good_answer, plain),
    ]


def _matching(filters: Filters) -> QuerySet[Message]:
    rows = trainable_messages()
    if filters.rating is not None:
        rows = rows.filter(feedback__rating=filters.rating)
    if filters.corrected is not None:
        rows = rows.filter(id__in=_CORRECTED) if filters.corrected else rows.filter(correction=None)
    if filters.model:
        rows = rows.filter(version__model__slug=filters.model)
    if filters.version is not None:
        rows = rows.filter(version__number=filters.version)
    if filters.since:
        rows = rows.filter(created_at__gte=filters.since_moment)
    if filters.until:
        rows = rows.filter(created_at__lt=filters.until_moment)
    if filters.people:
        rows = rows.filter(conversation__owner__in=filters.people)
    return _tagged(rows, filters.tags) if filters.tags else rows


def _tagged(rows: QuerySet[Message], tags: tuple[str, ...]) -> QuerySet[Message]:
    """With one of them at least. SQLite cannot look into a list; tags are words of a fixed list, so their text does."""
    any_of = reduce(or_, (Q(tag_text__contains=f'"{tag}"') for tag in tags))
    return rows.annotate(tag_text=Cast("feedback__tags", TextField())).filter(any_of)


def _rejected(replies: QuerySet[Message]) -> QuerySet[Message]:
    """The other answers to the questions whose chosen answer is one of these."""
    chosen = replies.filter(WHOLE, id=OuterRef("chosen"))
    questions = Choice.objects.filter(Exists(chosen)).values("question")
    others = trainable_messages().filter(parent__in=questions)
    return others.exclude(id=F("parent__choice__chosen")).exclude(content=F("parent__choice__chosen__content"))


def _to_draft(source: _Source, reply: Message, line: int) -> Draft:
    subject = source.subject(reply)
    return Draft(
        example=source.make(reply),
        origin=source.origin,
        line=line,
        group=str(reply.conversation_id),
        contributor_id=reply.conversation.owner_id,
        conversation_id=reply.conversation_id,
        message_id=subject.id,
        model_version_id=subject.version_id,
    )


def _good_answer(reply: Message) -> formats.ChatExample:
    return formats.ChatExample((*_context(reply), *_answer(reply.content)))


def _corrected_answer(reply: Message) -> formats.ChatExample:
    return formats.ChatExample((*_context(reply), *_answer(reply.correction.content)))


def _correction_pair(reply: Message) -> formats.PreferenceExample:
    return formats.PreferenceExample(_prompt(reply), _answer(reply.correction.content), _answer(reply.content))


def _choice_pair(rejected: Message) -> formats.PreferenceExample:
    chosen = rejected.parent.choice.chosen
    return formats.PreferenceExample(_prompt(rejected), _answer(chosen.content), _answer(rejected.content))


def _kto_example(reply: Message) -> formats.KtoExample:
    is_good = reply.feedback.rating == Feedback.Rating.GOOD
    return formats.KtoExample(_prompt(reply), _answer(reply.content), is_good)


def _answer(content: str) -> tuple[formats.Message, ...]:
    return (formats.Message("assistant", content),)


def _context(reply: Message) -> tuple[formats.Message, ...]:
    """The prompt of a row to imitate. Earlier answers are read, not learned: a good one has a row of its own."""
    turns = _prompt(reply)
    return tuple(formats.Message(turn.role, turn.content, int(turn.role != "assistant")) for turn in turns)


def _prompt(reply: Message) -> tuple[formats.Message, ...]:
    """What the model was asked, as it was asked: system prompt, the messages that went along, the question."""
    question = reply.parent
    went_along = min(question.depth - reply.messages_left_out, get_settings().context_messages)
    context, _ = take_context(question, max(went_along, 0))
    turns = _alternating([formats.Message(Role(item.role).value, item.content) for item in context])
    own = reply.version.system_prompt.strip() if reply.version else ""
    system = system_prompt_of(reply.conversation, reply.options) or own
    return (formats.Message("system", system), *turns) if system else tuple(turns)


def _alternating(turns: list[formats.Message]) -> list[formats.Message]:
    """From the first question on, user and assistant in turn: questions that got no answer are put together."""
    joined: list[formats.Message] = []
    for turn in turns:
        if turn.role == "system" or (not joined and turn.role != "user"):
            continue
        if joined and joined[-1].role == turn.role:
            turn = formats.Message(turn.role, f"{joined.pop().content}\n\n{turn.content}")
        joined.append(turn)
    return joined
