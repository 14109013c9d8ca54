"""Preference training of causal models on the same loop: DPO on pairs, KTO on single rated answers.

The reference is the model the run begins with, an earlier adapter included. Its log probabilities are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from finetuning.training.batching import split_by_length
from finetuning.training.causal import attach_lora, causal_identity, data_digest, load_causal, train_causal
from finetuning.training.errors import ConversationError, DataError
from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.labels import Excluded
from finetuning.training.loop import Evaluation, TrainingResult
from finetuning.training.parallel import current
from finetuning.training.preference_losses import dpo_losses, kto_losses
from finetuning.training.rendering import ChatRenderer, Message, TrainingSequence
from finetuning.training.runs import Run, RunOptions, digest
from finetuning.training.token_loss import collate, token_log_probabilities


@dataclass(frozen=True)
class PreferencePair:
    prompt: Sequence[Message]
    chosen: str
    rejected: str


@dataclass(frozen=True)
class RatedAnswer:
    prompt: Sequence[Message]
    answer: str
    is_desirable: bool


@dataclass(frozen=True, kw_only=True)
class PreferenceOutcome:
    """`folders` is empty for a stopped run. `excluded` are training rows, `held_out_excluded` held-out ones."""

    result: TrainingResult
    folders: dict[str, Path]
    template_hash: str
    excluded: list[Excluded]
    held_out_excluded: list[Excluded]


class Answers:
    """Groups of answers (a pair; or an answer and a mismatched one) and the reference's log probability of each."""

    def __init__(self, model: Any, groups: Sequence[tuple[TrainingSequence, ...]], *, pad_token_id: int) -> None:
        self.lengths = [sum(map(len, group)) for group in groups]
        self._model = model
        self._groups = groups
        self._pad_token_id = pad_token_id
        # Until `remember_reference`, which the loop asks for first: what is measured before needs numbers, not these.
        self._reference = torch.zeros(len(groups), len(groups[0]) if groups else 0)

    def __len__(self) -> int:
        return len(self._groups)

    def remember_reference(self, check: Callable[[], None], *, batch_size: int) -> None:
        for rows in split_by_length(range(len(self)), self.lengths, batch_size=batch_size):
            check()
            self._reference[rows] = self.log_probabilities(rows).cpu()

    def log_probabilities(self, rows: Sequence[int], member: int | None = None) -> torch.Tensor:
        """Of whole answers: [rows, members of a group], or [rows] for one member."""
        members = range(len(self._groups[0])) if member is None else [member]
        sequences = [self._groups[row][m] for row in rows for m in members]
        batch = collate(sequences, pad_token_id=self._pad_token_id, device=str(self._model.device))
        values = token_log_probabilities(self._model, batch)
        return values.view(len(rows), -1) if member is None else values

    def reference(self, rows: Sequence[int]) -> torch.Tensor:
        return self._reference[list(rows)].to(self._model.device)

    @property
    def device(self) -> torch.device:
        return self._model.device


class DpoObjective:
    """`accuracy` is the share of held-out pairs whose chosen answer gained more than the rejected one."""

    def __init__(self, train: Answers, held_out: Answers, *, hyperparameters: Hyperparameters) -> None:
        self.lengths = train.lengths
        self.evaluation_tokens = sum(held_out.lengths)
        self._train = train
        self._held_out = held_out
        self._values = hyperparameters

    def prepare(self, check: Callable[[], None]) -> None:
        for answers in (self._train, self._held_out):
            answers.remember_reference(check, batch_size=self._values.per_device_eval_batch_size)

    def begin_step(self, batches: Sequence[Sequence[int]], check: Callable[[], None]) -> None:
        """A batch's loss depends on nothing but the batch."""

    def units(self, rows: Sequence[int]) -> int:
        return len(rows)

    def loss(self, rows: Sequence[int]) -> torch.Tensor:
        return self._losses(self._train, rows)[0].sum()

    def evaluate(self, check: Callable[[], None]) -> Evaluation | None:
        if not len(self._held_out):
            return None
        losses, margins = [], []
        batch_size = self._values.per_device_eval_batch_size
        for rows in split_by_length(range(len(self._held_out)), self._held_out.lengths, batch_size=batch_size):
            check()
            loss, margin = self._losses(self._held_out, rows)
            losses.append(loss)
            margins.append(margin)
        gained, mean = torch.cat(margins), float(torch.cat(losses).mean())
        metrics = {"eval_loss": mean, "accuracy": float((gained > 0).float().mean()), "margin": float(gained.mean())}
        return Evaluation(metrics, score=mean)

    def _losses(self, answers: Answers, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        ours, reference = answers.log_probabilities(rows), answers.reference(rows)
        losses = dpo_losses(
            ours[:, 0],
            ours[:, 1],
            reference_chosen=reference[:, 0],
            reference_rejected=reference[:, 1],
            beta=self._values.beta,
        )
        gained = ours - reference
        return losses, gained[:, 0] - gained[:, 1]


class KtoObjective:
    """Each group is an answer and, for the distance to the reference, the answer of another row to the same prompt.

    The distance is estimated once for all rows of a step, so that it does not matter how the step is split: of a batch
    of one it would be a single number, which is cut off at 0. `margin` is how much more the good held-out answers
    gained than the bad ones.
    """

    def __init__(
        self,
        train: Answers,
        held_out: Answers,
        *,
        is_desirable: Sequence[bool],
        held_out_is_desirable: Sequence[bool],
        hyperparameters: Hyperparameters,
    ) -> None:
        self.lengths = train.lengths
        self.evaluation_tokens = sum(held_out.lengths)
        self._train = (train, torch.tensor(is_desirable))
        self._held_out = (held_out, torch.tensor(held_out_is_desirable))
        self._values = hyperparameters
        self._kl = torch.tensor(float("nan"))  # until `begin_step`: a loss without it must not look like one

    def prepare(self, check: Callable[[], None]) -> None:
        for answers, _ in (self._train, self._held_out):
            answers.remember_reference(check, batch_size=self._values.per_device_eval_batch_size)

    @torch.no_grad()
    def begin_step(self, batches: Sequence[Sequence[int]], check: Callable[[], None]) -> None:
        """One more pass over the step's rows; each process does its share of it."""
        (answers, _), processes, total = self._train, current(), 0.0
        for rows in processes.share(list(batches)):
            check()
            if rows:
                moved = answers.log_probabilities(rows, 1) - answers.reference(rows)[:, 1]
                total += moved.sum().item()
        total = processes.sum(total, device=str(answers.device))
        self._kl = torch.tensor(total / sum(map(len, batches))).clamp(min=0)

    def units(self, rows: Sequence[int]) -> int:
        return len(rows)

    def loss(self, rows: Sequence[int]) -> torch.Tensor:
        answers, is_desirable = self._train
        ours, reference = answers.log_probabilities(rows, 0), answers.reference(rows)[:, 0]
        return self._losses(ours, reference, is_desirable[list(rows)], self._kl).sum()

    def evaluate(self, check: Callable[[], None]) -> Evaluation | None:
        answers, is_desirable = self._held_out
        if not len(answers):
            return None
        ours, reference = torch.zeros(len(answers), 2), answers.reference(range(len(answers))).cpu()
        batch_size = self._values.per_device_eval_batch_size
        for rows in split_by_length(range(len(answers)), answers.lengths, batch_size=batch_size):
            check()
            ours[rows] = answers.log_probabilities(rows).cpu()
        gains, moved = (ours - reference).unbind(dim=1)
        mean = float(self._losses(ours[:, 0], reference[:, 0], is_desirable, moved.mean().clamp(min=0)).mean())
        metrics = {"eval_loss": mean}
        if is_desirable.any() and not is_desirable.all():
            metrics["margin"] = float(gains[is_desirable].mean() - gains[~is_desirable].mean())
        return Evaluation(metrics, score=mean)

    def _losses(
        self, ours: torch.Tensor, reference: torch.Tensor, is_desirable: torch.Tensor, kl: torch.Tensor
    ) -> torch.Tensor:
        return kto_losses(
            ours,
            reference=reference,
            is_desirable=is_desirable.to(ours.device),
            kl=kl,
            beta=self._values.beta,
            desirable_weight=self._values.desirable_weight,
            undesirable_weight=self._values.undesirable_weight,
        )


@dataclass(frozen=True)
class RenderedRows:
    """`groups[i]` was made of row `kept[i]`."""

    groups: list[tuple[TrainingSequence, ...]]
    kept: list[int]
    excluded: list[Excluded]


@dataclass(frozen=True, kw_only=True)
class PreparedPreferences:
    """Ready to be trained, or to be looked at first."""

    run: Run
    renderer: ChatRenderer
    training: RenderedRows
    held_out: RenderedRows


def prepare_preferences(
    base_folder: Path,
    rows: Sequence[PreferencePair] | Sequence[RatedAnswer],
    *,
    options: RunOptions,
    hyperparameters: Hyperparameters,
    held_out: Sequence[PreferencePair] | Sequence[RatedAnswer] = (),
    adapter: Path | None = None,
) -> PreparedPreferences:
    """Load the base and render all rows. Raises what `errors.py` names, or `StopRequested`."""
    method = Method.DPO if isinstance(next(iter(rows), None), PreferencePair) else Method.KTO
    base, renderer = load_causal(base_folder, options)
    limit = min(hyperparameters.max_length or base.context_window, base.context_window)
    train = render_rows(renderer, rows, max_length=limit, check=options.check)
    held = render_rows(renderer, held_out, max_length=limit, check=options.check)
    if not train.groups:
        first = f" {train.excluded[0].message}" if train.excluded else ""
        raise DataError(f"None of the {len(rows)} rows can be trained on.{first}")
    if method is Method.KTO:
        _refuse_one_sided(_ratings(rows, train))
        train = with_mismatched(renderer, rows, train, max_length=limit, check=options.check)
        held = with_mismatched(renderer, held_out, held, max_length=limit, check=options.check)
    model = attach_lora(base, hyperparameters, adapter=adapter)
    pad = base.pad_token_id
    sets = Answers(model, train.groups, pad_token_id=pad), Answers(model, held.groups, pad_token_id=pad)
    sequences = [sequence for part in (train, held) for group in part.groups for sequence in group]
    ratings = [getattr(row, "is_desirable", None) for row in (*rows, *held_out)]
    run = Run(
        method=method,
        model=model,
        objective=_objective(method, sets, (rows, train), (held_out, held), hyperparameters),
        base=base,
        hyperparameters=hyperparameters,
        data=digest([data_digest(sequences), ratings]),
        identity=causal_identity(renderer, adapter),
    )
    return PreparedPreferences(run=run, renderer=renderer, training=train, held_out=held)


def train_preferences(
    base_folder: Path,
    rows: Sequence[PreferencePair] | Sequence[RatedAnswer],
    *,
    options: RunOptions,
    hyperparameters: Hyperparameters,
    held_out: Sequence[PreferencePair] | Sequence[RatedAnswer] = (),
    adapter: Path | None = None,
) -> PreferenceOutcome:
    """DPO for pairs, KTO for rated answers, with LoRA; `adapter` is the SFT adapter to go on with.

    Rows that are too long are left out whole: a cut answer has another probability. Raises what `errors.py` names.
    """
    prepared = prepare_preferences(
        base_folder, rows, options=options, hyperparameters=hyperparameters, held_out=held_out, adapter=adapter
    )
    result, folders = train_causal(prepared.run, prepared.renderer, options)
    return PreferenceOutcome(
        result=result,
        folders=folders,
        template_hash=prepared.renderer.template_hash,
        excluded=prepared.training.excluded,
        held_out_excluded=prepared.held_out.excluded,
    )


def _objective(
    method: Method,
    sets: tuple[Answers, Answers],
    train: tuple[Sequence[Any], RenderedRows],
    held_out: tuple[Sequence[Any], RenderedRows],
    hyperparameters: Hyperparameters,
) -> DpoObjective | KtoObjective:
    if method is Method.DPO:
        return DpoObjective(*sets, hyperparameters=hyperparameters)
    return KtoObjective(
        *sets,
        is_desirable=_ratings(*train),
        held_out_is_desirable=_ratings(*held_out),
        hyperparameters=hyperparameters,
    )


def _ratings(rows: Sequence[Any], rendered: RenderedRows) -> list[bool]:
    return [rows[row].is_desirable for row in rendered.kept]


def render_rows(
    renderer: ChatRenderer, rows: Sequence[Any], *, max_length: int, check: Callable[[], None]
) -> RenderedRows:
    """Both answers of each pair; or the rated answer."""
    rendered = RenderedRows([], [], [])
    for row, item in enumerate(rows):
        check()
        try:
            group = _render(renderer, item, max_length=max_length)
        except ConversationError as error:
            rendered.excluded.append(Excluded(row, error.code, error.message))
        else:
            rendered.groups.append(group)
            rendered.kept.append(row)
    return rendered


def with_mismatched(
    renderer: ChatRenderer,
    rows: Sequence[Any],
    rendered: RenderedRows,
    *,
    max_length: int,
    check: Callable[[], None],
) -> RenderedRows:
    """Beside each rated answer one that does not belong to the prompt. No row is left out for its neighbour's sake."""
    groups = []
    for place, group in enumerate(rendered.groups):
        check()
        groups.append((*group, _mismatched(renderer, rows, rendered, place, max_length=max_length)))
    return replace(rendered, groups=groups)


def conversations_of(item: PreferencePair | RatedAnswer) -> list[list[Message]]:
    """Each of its answers behind the prompt, of which nothing is trained."""
    texts = (item.answer,) if isinstance(item, RatedAnswer) else (item.chosen, item.rejected)
    return [_answered(item.prompt, text) for text in texts]


def _answered(prompt: Sequence[Message], text: str) -> list[Message]:
    return [*({**message, "weight": 0} for message in prompt), {"role": "assistant", "content": text}]


def _render(renderer: ChatRenderer, item: Any, *, max_length: int) -> tuple[TrainingSequence, ...]:
    """Raises `ConversationError`."""
    if isinstance(item, PreferencePair) and item.chosen == item.rejected:
        raise ConversationError("Both answers of the pair are the same.")
    group = tuple(sequence for messages in conversations_of(item) for sequence in renderer.render(messages))
    if max(map(len, group)) > max_length:
        raise ConversationError(f"An answer with its prompt is longer than {max_length} tokens.")
    return group


def _mismatched(
    renderer: ChatRenderer, rows: Sequence[Any], rendered: RenderedRows, place: int, *, max_length: int
) -> TrainingSequence:
    """The next row's answer to this row's prompt, cut where it is too long: only an estimate is made of it."""
    prompt, count = rows[rendered.kept[place]].prompt, len(rendered.kept)
    for distance in range(1, count):
        other = rows[rendered.kept[(place + distance) % count]]
        with suppress(ConversationError):  # this prompt's template does not take that answer
            (sequence,) = renderer.render(_answered(prompt, other.answer))
            if (fitting := sequence.cut_right(max_length)).trained_tokens:
                return fitting
    return rendered.groups[place][0]


def _refuse_one_sided(ratings: Sequence[bool]) -> None:
    if len(set(ratings)) < 2:
        raise DataError("KTO needs answers rated good and answers rated bad; these have only one kind.")
