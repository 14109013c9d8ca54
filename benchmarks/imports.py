"""An import of many rows beside chat: rows per second, peak memory, and how long small writes of others wait.

    python -m benchmarks.imports                 # 1,000,000 rows, about ten minutes
    python -m benchmarks.imports --rows 50000

It makes a data folder of its own. Another process writes a message every few milliseconds, as chat does, first alone
and then while the import runs. Then the rows are frozen into a version.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS = "the river runs slowly past old houses where people sit and talk about rain bread music and the long way home"
ALONE_SECONDS = 10


def write_rows(path: Path, count: int) -> None:
    """About 470 bytes a row; one in a hundred holds an address, one in a thousand cannot be used."""
    source, words = random.Random(7), WORDS.split()
    with path.open("w") as stream:
        for number in range(count):
            question = " ".join(source.choices(words, k=18))
            answer = " ".join(source.choices(words, k=55)) + (" jane@example.com" if number % 100 == 0 else "")
            messages = [{"role": "user", "content": f"{number}: {question}?"}]
            if number % 1000 != 999:
                messages.append({"role": "assistant", "content": f"{answer}."})
            stream.write(json.dumps({"messages": messages}) + "\n")


def parse_only(path: Path) -> None:
    """Child process: every row read and checked, hashed and scanned, none stored. Prints two rates."""
    from finetuning.formats import detect, parse
    from finetuning.scanning import scan_example

    layout = detect(path).layout
    for name in ("parsed and validated", "also hashed and scanned"):
        began, count = time.perf_counter(), 0
        for result in parse(path, layout):
            count += 1
            if name.startswith("also") and result.example:
                result.example.content_hash()
                scan_example(result.example)
        print(f"{name}: {count / (time.perf_counter() - began):,.0f} rows/s")


def compete(target: Path) -> None:
    """Child process: a message and its conversation, written every 20 ms until the file `stop` is there."""
    set_up_django()
    from django.db import transaction

    from accounts.models import User
    from chat.models import Conversation, Message

    person, _ = User.objects.get_or_create(username="bench", email="bench@example.org")
    conversation = Conversation.objects.create(owner=person, title="Bench", model="none")
    waits: list[float] = []
    while not target.with_name("stop").exists():
        began = time.perf_counter()
        with transaction.atomic():
            Message.objects.create(conversation=conversation, role="user", content="How far is it to the sea?")
            Conversation.objects.filter(pk=conversation.pk).update(title=f"Bench {len(waits)}")
        waits.append((time.perf_counter() - began) * 1000)
        time.sleep(0.02)
    target.write_text(json.dumps(waits))


def freeze(name: str) -> None:
    """Child process: the dataset's rows into a version. Prints how long, and the memory."""
    set_up_django()
    from finetuning import datasets
    from finetuning.models import Dataset

    began = time.perf_counter()
    version = datasets.freeze_now(Dataset.objects.get(name=name), user=None)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"frozen: {version.rows:,} rows in {seconds:.0f} s ({version.rows / seconds:,.0f} rows/s), {peak:.0f} MB")


def set_up_django() -> None:
    import django

    django.setup()


@contextmanager
def competing(folder: Path, env: dict[str, str]) -> Iterator[list[float]]:
    """The waits, filled when it ends."""
    waits: list[float] = []
    target, stop = folder / "waits.json", folder / "stop"
    stop.unlink(missing_ok=True)
    child = subprocess.Popen([sys.executable, "-m", "benchmarks.imports", "--compete", str(target)], cwd=ROOT, env=env)
    try:
        time.sleep(3)  # its own start is no part of it
        yield waits
    finally:
        stop.touch()
        child.wait(60)
    waits += json.loads(target.read_text())


def show(name: str, waits: list[float]) -> None:
    cuts = statistics.quantiles(waits, n=100)
    print(
        f"{name}: {len(waits):,} writes, median {cuts[49]:.1f} ms, 95 % {cuts[94]:.1f} ms, 99 % {cuts[98]:.1f} ms, "
        f"longest {max(waits):.0f} ms, over 100 ms {sum(wait > 100 for wait in waits)}",
        flush=True,
    )


def run_child(arguments: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Seconds and peak megabytes of a child process. Raises SystemExit when it fails."""
    began = time.perf_counter()
    child = subprocess.Popen(arguments, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {child.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def measure(rows: int, folder: Path) -> None:
    env = os.environ | {
        "DATA_DIR": str(folder / "var"),
        "DATABASE_URL": "",
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    path = folder / "rows.jsonl"
    write_rows(path, rows)
    print(f"{rows:,} rows, {path.stat().st_size / 2**20:.0f} MiB", flush=True)
    run_child([sys.executable, "-m", "benchmarks.imports", "--parse", str(path)], env)
    run_child([sys.executable, "manage.py", "migrate", "-v0"], env)
    with competing(folder, env) as alone:
        time.sleep(ALONE_SECONDS)
    show("small writes alone", alone)
    with competing(folder, env) as beside:
        seconds, peak = run_child([sys.executable, "manage.py", "import_dataset", str(path), "--name", "Bench"], env)
    print(f"stored: {rows / seconds:,.0f} rows/s, {peak:.0f} MB", flush=True)
    show("small writes beside the import", beside)
    run_child([sys.executable, "-m", "benchmarks.imports", "--freeze", "Bench"], env)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--parse", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--compete", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--freeze", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.parse:
        parse_only(options.parse)
    elif options.compete:
        compete(options.compete)
    elif options.freeze:
        freeze(options.freeze)
    else:
        with tempfile.TemporaryDirectory(prefix="dialoop-imports-") as folder:
            measure(options.rows, Path(folder))


if __name__ == "__main__":
    main()
