"""Model versions that came of trainings: registered, evaluated, reported on, promoted, exported."""

from finetuning.versions.files import export_version
from finetuning.versions.promotion import delete_version, find_previous, promote, retire, roll_back
from finetuning.versions.reports import compare, get_report, get_version, list_answers, list_events, list_reports

__all__ = [
    "compare",
    "delete_version",
    "export_version",
    "find_previous",
    "get_report",
    "get_version",
    "list_answers",
    "list_events",
    "list_reports",
    "promote",
    "retire",
    "roll_back",
]
