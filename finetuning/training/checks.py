"""What is looked for in data that is about to be trained on. Each finding has a stable code and a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from finetuning.training.hyperparameters import Hyperparameters, Method
from finetuning.training.labels import Excluded
from finetuning.training.preferences import RatedAnswer
from finetuning.training.rendering import ChatRenderer, Message, TrainingSequence, trained_turns

MIN_ROWS, FEW_PREFERENCES, FEW_OF_A_LABEL = 10, 50, 10
MANY_EXCLUDED, MANY_CUT = 0.5, 0.1
LONGER_SHARE, LONGER_RATIO = 0.8, 1.5
LOPSIDED = 0.95
WEIGHTS_WITHIN = (0.99, 4 / 3 + 0.01)
COMPARED_ROWS = 50
# What the template does to every row, and no change of a row would mend.
OF_THE_TEMPLATE = {
    "missing_stop_token": "a trained answer does not end in a stop token, so the tuned model would never stop",
    "double_bos": "the conversation would begin with two begin-of-sequence tokens",
}


class Findings:
    """Errors forbid the run; warnings are for a person to weigh."""

    def __init__(self) -> None:
        self.errors: list[dict[str, Any]] = []
        self.warnings: list[dict[str, Any]] = []

    def fail(self, code: str, message: str, **more: Any) -> None:
        self.errors.append({"code": code, "message": message, **more})

    def warn(self, code: str, message: str, **more: Any) -> None:
        self.warnings.append({"code": code, "message": message, **more})


def check_rows(found: Findings, method: Method, *, rows: int, held_out: int) -> None:
    if not rows or rows + held_out < MIN_ROWS:
        besides = f" and {held_out} are held out" if held_out else ""
        sentence = f"There are {rows} rows to train on{besides}; at least {MIN_ROWS} are needed."
        found.fail("too_few_rows", sentence)
    elif method in (Method.DPO, Method.KTO) and rows < FEW_PREFERENCES:
        found.warn("few_rows", f"{rows} rated rows are few: with less than {FEW_PREFERENCES} little is learnt.")
    if not held_out:
        found.warn("no_validation", "No row is held out, so nothing says when to stop or which weights are best.")


def check_held_out(found: Findings, excluded: Sequence[Excluded], *, rows: int) -> None:
    """For rows of which none can be used: the run does without them."""
    reason = f" The first: {excluded[0].message}" if excluded else ""
    missing = "nothing says when to stop or which weights are best"
    found.warn("held_out_unusable", f"None of the {rows} held-out rows can be used, so {missing}.{reason}")


def check_leaks(found: Findings, train: Iterable[Any], held_out: Iterable[Any]) -> None:
    seen = {hash(repr(content)) for content in train}
    leaked = sum(hash(repr(content)) in seen for content in held_out)
    if leaked:
        found.warn("leak", f"{leaked} held-out rows are trained on too: what is measured on them says little.")


def check_excluded(found: Findings, codes: Mapping[str, int], *, rows: int) -> None:
    """R9: a bad row does not end the run, and none goes silently. R1 and R4 forbid the run."""
    for code, reason in OF_THE_TEMPLATE.items():
        if codes.get(code):
            found.fail(code, f"In {codes[code]} of {rows} rows {reason}.")
    total = sum(codes.values())
    if total > rows * MANY_EXCLUDED:
        found.fail("most_rows_excluded", f"{total} of {rows} rows cannot be trained on.")
    elif total:
        found.warn("rows_excluded", f"{total} of {rows} rows are left out.")


def check_stop_tokens(
    found: Findings, renderer: ChatRenderer, sequences: Sequence[TrainingSequence], *, cut: set[int]
) -> None:
    """R1, on what is really trained. `cut` are sequences shortened to the allowed length: their ends may be gone."""
    endless = [number for number, sequence in enumerate(sequences) if not _all_stop(sequence, renderer.stop_token_ids)]
    broken = [number for number in endless if number not in cut]
    if broken:
        found.fail(
            "missing_stop_token",
            f"In {len(broken)} sequences {OF_THE_TEMPLATE['missing_stop_token']}.",
            rows=broken[:20],
        )
    shortened = len(endless) - len(broken)
    if shortened > MANY_CUT * len(sequences):
        found.fail(
            "stop_token_cut",
            f"{shortened} of {len(sequences)} answers are cut before their end, so the tuned model would rarely stop. "
            "Allow longer rows (max_length).",
        )
    elif shortened:
        found.warn("answers_cut", f"{shortened} answers are longer than max_length; their ends are not trained.")


def _all_stop(sequence: TrainingSequence, stops: frozenset[int]) -> bool:
    pairs = zip(sequence.input_ids.tolist(), sequence.is_trained.tolist(), strict=True)
    runs = [[token for token, _ in run] for is_trained, run in groupby(pairs, key=lambda p: p[1]) if is_trained]
    return bool(runs) and all(run[-1] in stops for run in runs)


def check_trained_share(found: Findings, sequences: Sequence[TrainingSequence]) -> None:
    """R2: a mask of all or nothing trains on the wrong tokens, and the loss falls all the same."""
    wrong = sum(not 0 < sequence.trained_tokens < len(sequence) for sequence in sequences)
    if wrong:
        found.fail("trained_share", f"In {wrong} of {len(sequences)} sequences no token, or every token, is trained.")


def check_like_in_chat(
    found: Findings, renderer: ChatRenderer, conversations: Sequence[Sequence[Message]], *, system_prompt: str
) -> None:
    """R3: what stands before an answer in training must be, token by token, what chat gives the model."""
    differing = sum(_differs(renderer, messages) for messages in conversations[:COMPARED_ROWS])
    if differing:
        found.warn(
            "prompt_differs",
            f"In {differing} of {min(COMPARED_ROWS, len(conversations))} rows the tokens before an answer are not "
            "those that chat gives the model.",
        )
    own = {messages[0]["content"] for messages in conversations if messages and messages[0]["role"] == "system"}
    if own - {system_prompt}:
        count = sum(bool(messages) and messages[0]["role"] == "system" for messages in conversations)
        found.warn(
            "own_system_prompts",
            f"{count} of {len(conversations)} rows have a system prompt of their own, "
            f"{len(own - {system_prompt})} different from that of the version: in chat the model is not given them.",
        )


def _differs(renderer: ChatRenderer, messages: Sequence[Message]) -> bool:
    turns = trained_turns(renderer.with_system_prompt(messages))
    whole = renderer.with_system_prompt(messages)
    for sequence in renderer.render(messages):
        ids = sequence.input_ids.tolist()
        starts = np.flatnonzero(np.diff(sequence.is_trained.astype(int)) == 1) + 1
        prompts = [renderer.render_prompt(whole[:turn]) for turn in turns]
        if any(ids[:start] not in prompts for start in starts.tolist()):
            return True
    return False


def check_origin(found: Findings, origin: Mapping[str, Any], renderer: ChatRenderer) -> None:
    """R3, for a base or an adapter of our own making: it was trained with one template and system prompt."""
    before = origin.get("template_hash")
    if before and before != renderer.template_hash:
        what = "system prompt" if origin.get("system_prompt") != renderer.system_prompt else "chat template"
        found.warn(
            "template_changed",
            f"The base was trained with another {what} than it is given now. Its behaviour may change for that alone.",
        )


def check_length_bias(found: Findings, pairs: Sequence[tuple[TrainingSequence, ...]]) -> None:
    """Each is the better answer and the worse. A model that is shown longer ones as the better learns to be long."""
    if not pairs:
        return
    chosen, rejected = (np.array([pair[side].trained_tokens for pair in pairs]) for side in (0, 1))
    longer, shorter = float((chosen > rejected).mean()), float((chosen < rejected).mean())
    ratio = float(chosen.mean() / max(1.0, rejected.mean()))
    word = "longer" if ratio > 1 else "shorter"
    if max(longer, shorter) >= LONGER_SHARE or ratio >= LONGER_RATIO or ratio <= 1 / LONGER_RATIO:
        found.warn(
            "length_bias",
            f"The better answer is the {word} one in {max(longer, shorter):.0%} of the pairs ({chosen.mean():.0f} and "
            f"{rejected.mean():.0f} tokens): length may be what is learnt.",
        )


def check_ratings(found: Findings, rows: Sequence[RatedAnswer], values: Hyperparameters) -> None:
    """R16: an import that marks every row good trains a model to answer anything."""
    good = sum(row.is_desirable for row in rows)
    bad = len(rows) - good
    if not good or not bad:
        found.fail("one_rating", f"All {len(rows)} rows are rated {'good' if good else 'bad'}; KTO needs both.")
        return
    ratio = values.desirable_weight * good / (values.undesirable_weight * bad)
    if not WEIGHTS_WITHIN[0] <= ratio <= WEIGHTS_WITHIN[1]:
        found.warn(
            "kto_weights",
            f"With these weights good and bad answers count {ratio:.2f} : 1; between 1 : 1 and 4 : 3 is advised.",
        )
    if max(good, bad) > LOPSIDED * len(rows):
        found.warn("one_sided", f"{good} answers are rated good and {bad} bad: one kind is too rare to learn from.")


def check_labels(found: Findings, train: Sequence[str], held_out: Sequence[str]) -> None:
    counts = Counter(train)
    if len(counts) < 2:
        found.fail("one_label", f"A classifier needs at least two labels; the training rows have {len(counts)}.")
    unknown = sorted(set(held_out) - counts.keys())
    if unknown and counts:
        found.fail("unknown_labels", f"Held-out rows have labels that no training row has: {', '.join(unknown[:5])}.")
    rare = sorted(label for label, count in counts.items() if count < FEW_OF_A_LABEL)
    if rare:
        found.warn("rare_labels", f"Labels with less than {FEW_OF_A_LABEL} rows: {', '.join(rare[:5])}.")
    if counts and counts.most_common(1)[0][1] > LOPSIDED * len(train):
        found.warn("one_sided", f"Nearly all rows are labelled {counts.most_common(1)[0][0]}.")
