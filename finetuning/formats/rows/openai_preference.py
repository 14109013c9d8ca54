"""OpenAI's preference rows: {"input": {"messages"}, "preferred_output": [...], "non_preferred_output": [...]}."""

from __future__ import annotations

from finetuning.formats.examples import PreferenceExample
from finetuning.formats.problems import Code, Problem, fail
from finetuning.formats.registry import Field, Row, RowFormat
from finetuning.formats.rows.preference import make_pair
from finetuning.formats.turns import read_answer, read_prompt, refuse_tools_and_media


def recognise(row: Row) -> float:
    return 1.0 if "preferred_output" in row and "non_preferred_output" in row else 0.0


def read(row: Row, warnings: list[Problem]) -> PreferenceExample:
    given = row.get("input")
    if given is None:
        fail(Code.MISSING_FIELD, 'The row has no "input".')
    if type(given) is dict:
        refuse_tools_and_media(given)
        given = given.get("messages")
    prompt = read_prompt(given, "input", warnings=warnings)
    chosen = read_answer(row.get("preferred_output"), "preferred_output", warnings=warnings)
    rejected = read_answer(row.get("non_preferred_output"), "non_preferred_output", warnings=warnings)
    return make_pair(prompt, chosen, rejected)


FIELDS = (Field("input"), Field("preferred_output"), Field("non_preferred_output"))
FORMAT = RowFormat("openai_preference", "OpenAI preference pairs", "preference", FIELDS, recognise, read)
