"""The rules of the architecture, kept by reading the code: where things may be imported, written and configured."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from django.core.management import call_command

from config.heartbeats import WORKER_QUEUES

BASE_DIR = Path(__file__).resolve().parent.parent
APPS = ("accounts", "chat", "config", "finetuning", "models_hub")
HEAVY = ("torch", "transformers", "datasets", "pyarrow", "pandas")
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60


@cache
def modules() -> dict[str, ast.Module]:
    """Our own code by path, migrations apart: those are written by a machine."""
    files = [BASE_DIR / "manage.py", *(file for app in APPS for file in sorted((BASE_DIR / app).rglob("*.py")))]
    return {
        str(file.relative_to(BASE_DIR)): ast.parse(file.read_text()) for file in files if "migrations" not in file.parts
    }


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def breaches(names: set[str], allowed: tuple[str, ...]) -> list[str]:
    """`path imports name` for each import of one of the packages outside the allowed places."""
    return [
        f"{path} imports {name}"
        for path, tree in modules().items()
        if not path.startswith(allowed)
        for name in imports(tree)
        if name.split(".")[0] in names
    ]


def test_provider_sdks_stay_in_the_clients():
    assert breaches({"openai"}, ("models_hub/clients/", "finetuning/training/")) == []


def test_machine_learning_stays_in_engine_starter_and_training():
    readers = ("finetuning/formats/containers/parquet.py",)  # within its functions; the processes' rules below hold
    allowed = ("models_hub/engine/", "models_hub/starter.py", "finetuning/training/", *readers)
    names = {*HEAVY, "accelerate", "peft", "trl", "safetensors", "tokenizers", "gguf", "numpy"}
    assert breaches(names, allowed) == []


def test_provider_interface_knows_neither_django_nor_an_sdk():
    own = {name.split(".")[0] for name in imports(modules()["models_hub/base.py"])}
    assert own <= set(sys.stdlib_module_names)


def test_replies_know_no_socket_and_no_http():
    found = [
        f"{path} imports {name}"
        for path, tree in modules().items()
        if path.startswith("chat/replies/")
        for name in imports(tree)
        if name.split(".")[0] in {"channels", "daphne", "aiohttp", "ninja"} or name.startswith("django.http")
    ]
    assert found == []


def test_only_the_loop_knows_the_loop():
    """Chat works without fine-tuning; config puts everything together, and its dashboard shows all of it."""
    assert breaches({"finetuning"}, ("finetuning/", "config/")) == []


def test_training_runs_without_django():
    found = [
        f"{path} imports {name}"
        for path, tree in modules().items()
        if path.startswith("finetuning/training/")
        for name in imports(tree)
        if name.split(".")[0] in {"django", "celery", *APPS} and not name.startswith("finetuning.training")
    ]
    assert found == []


# They run before Django's settings exist, set what the settings read, or hand an environment on to a process.
WITH_ENVIRONMENT = {
    "config/environment.py": {"get"},  # the reader that config/settings.py reads with
    "manage.py": {"setdefault"},
    "config/asgi.py": {"setdefault"},
    "config/celery.py": {"setdefault"},
    "config/serve.py": {"setdefault", "update"},
    "config/valkey_server.py": {"setdefault"},
    "models_hub/management/commands/serve_models.py": {"setdefault"},
    "finetuning/jobs/process.py": {"copy"},
}


def environment_uses(tree: ast.AST) -> set[str]:
    """The names of what is done with `os.environ`; "getenv", or "[]" for anything else."""
    used, called = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_environ(node.value):
            used.add(node.attr)
            called.add(id(node.value))
    for node in ast.walk(tree):
        if _is_environ(node) and id(node) not in called:
            used.add("[]")
        if isinstance(node, ast.Attribute) and node.attr == "getenv":
            used.add("getenv")
    return used


def _is_environ(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "environ" and isinstance(node.value, ast.Name)


def test_settings_alone_read_the_environment():
    found = {path: environment_uses(tree) - WITH_ENVIRONMENT.get(path, set()) for path, tree in modules().items()}
    assert {path: uses for path, uses in found.items() if uses and path != "config/settings.py"} == {}


def test_every_setting_is_explained_in_the_example():
    source = (BASE_DIR / "config" / "settings.py").read_text()
    names = set(re.findall(r'env\.[a-z]+\(\s*"([A-Z_]+)"', source))
    example = (BASE_DIR / ".env.example").read_text()
    explained = set(re.findall(r"^(?:# )?([A-Z_]+)=", example, flags=re.MULTILINE))
    assert len(names) > 30
    assert names | {"SECRET_KEY", "ENCRYPTION_KEYS", "ENGINE_API_KEY"} == explained


def test_every_setting_is_in_the_readme():
    readme = (BASE_DIR / "README.md").read_text()
    source = (BASE_DIR / "config" / "settings.py").read_text()
    assert [name for name in set(re.findall(r'env\.[a-z]+\(\s*"([A-Z_]+)"', source)) if f"`{name}`" not in readme] == []


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_modules_stay_readable():
    long = {
        path: lines
        for path in modules()
        if (lines := len((BASE_DIR / path).read_text().splitlines())) > MAX_MODULE_LINES
    }
    assert long == {}


def test_functions_stay_readable():
    long = {
        f"{path}:{function.name}": lines
        for path, tree in modules().items()
        for function in functions(tree)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_modules_say_what_they_are():
    silent = [path for path, tree in modules().items() if tree.body and not ast.get_docstring(tree)]
    assert [path for path in silent if not path.endswith(("/apps.py", "/__init__.py", "manage.py"))] == []


def test_nothing_is_caught_without_being_named():
    found = [
        f"{path}:{node.lineno}"
        for path, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert found == []


WRITES = {"create", "bulk_create", "bulk_update", "update_or_create", "get_or_create", "update", "delete"}
DOORS = re.compile(r"(^|/)(views|api|consumers|urls|tasks)\.py$|/management/commands/")


def test_doors_write_nothing_themselves():
    """Pages, sockets, routes, tasks and commands call a service: `Model.objects....create()` is for those."""
    found = []
    for path, tree in modules().items():
        if not DOORS.search(path):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WRITES:
                chain = ast.unparse(node.func)
                if ".objects." in chain:
                    found.append(f"{path}:{node.lineno} {chain}")
    assert found == []


def test_every_task_names_its_queue(settings):
    """In one table: Celery 6 no longer reads the queue from the task itself."""
    from config.celery import app

    app.autodiscover_tasks(force=True)
    ours = {name for name in app.tasks if name.split(".")[0] in APPS}
    assert ours == set(settings.CELERY_TASK_ROUTES)
    assert {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()} <= set(WORKER_QUEUES)


def test_every_scheduled_task_exists(settings):
    from config.celery import app

    app.autodiscover_tasks(force=True)
    assert [entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values() if entry["task"] not in app.tasks] == []


WEB_PROCESS = """
import sys
import config.asgi
from django.urls import get_resolver

def visit(patterns):
    for pattern in patterns:
        visit(getattr(pattern, "url_patterns", []))

visit(get_resolver().url_patterns)
print(",".join(sorted({name.split(".")[0] for name in sys.modules})))
"""


def test_web_process_never_loads_the_heavy_packages():
    result = subprocess.run(
        [sys.executable, "-c", WEB_PROCESS], cwd=BASE_DIR, capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.strip().split(","))
    assert {"django", "channels", "chat", "models_hub"} <= loaded
    assert loaded & {*HEAVY, "peft", "trl", "accelerate", "numpy"} == set()


WORKER_PROCESS = """
import sys
import config.worker
import django
django.setup()
config.worker.app.loader.import_default_modules()
print(",".join(sorted({name.split(".")[0] for name in sys.modules})))
"""


def test_worker_never_loads_the_heavy_packages():
    result = subprocess.run(
        [sys.executable, "-c", WORKER_PROCESS],
        cwd=BASE_DIR,
        env={**os.environ, "CELERY_SKIP_CHECKS": "true"},  # as in supervisord.conf
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(result.stdout.strip().split(","))
    assert loaded & {*HEAVY, "peft", "trl"} == set()
    assert loaded & {"ninja", "pydantic"} == set(), "what only the JSON API needs"


@pytest.mark.parametrize("arguments", [("check", "."), ("format", "--check", ".")])
def test_code_is_clean(arguments):
    result = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments], cwd=BASE_DIR, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.django_db
def test_no_migration_is_missing():
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_set_up_is_safe_by_djangos_own_checks():
    call_command("check", fail_level="WARNING", verbosity=0)
