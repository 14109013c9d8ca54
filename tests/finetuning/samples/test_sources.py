"""Samples come out of packages known by their hash, are kept, and say whose they are; without a network, a sentence."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from finetuning.formats import detect, parse
from finetuning.samples import package_index, sources
from finetuning.samples.package_index import PackageFile, PackageIndexError, fetch

SENTENCES = "\r\n".join(
    (
        "1\t2.5\tA fine  film, played with café charm.",
        "2\t0.4\tNobody knows what to think of it.",
        "3\t-1.5\tDull from end to end.",
        "4\t-1.9\tDULL from end to end.",
    )
)
IDENTITY = [{"instruction": "hi", "input": "", "output": "I am {{name}} of {{author}}."}]
PAIR = {
    "conversations": [{"from": "human", "value": "Say hello."}],
    "chosen": {"from": "gpt", "value": "Hello!"},
    "rejected": {"from": "gpt", "value": "No."},
}
RATED = {
    "messages": [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "Hello!"}],
    "label": True,
}


def archive(**files: bytes | str) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


@pytest.fixture(scope="module")
def packages() -> dict[str, bytes]:
    """What both packages look like, with a few rows of our own."""
    inner = archive(**{"hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": SENTENCES})
    root, data = "vaderSentiment-3.3.2", "llamafactory-0.9.5/data"
    resources = {f"{root}/additional_resources/hutto_ICWSM_2014.tar.gz": inner, f"{root}/LICENSE.txt": "The MIT"}
    demo = {
        f"{data}/identity.json": json.dumps(IDENTITY),
        f"{data}/alpaca_en_demo.json": json.dumps(IDENTITY),
        f"{data}/dpo_en_demo.json": json.dumps([PAIR]),
        f"{data}/kto_en_demo.json": json.dumps([RATED]),
        "llamafactory-0.9.5/LICENSE": "Apache",
    }
    return {"vaderSentiment-3.3.2.tar.gz": archive(**resources), "llamafactory-0.9.5.tar.gz": archive(**demo)}


class Index(ThreadingHTTPServer):
    """A package index that can be told to speak the older protocol, and remembers what it was asked."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.speaks_json = True
        self.asked: list[str] = []
        self.authorizations: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/simple"


class _Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.authorizations.append(self.headers.get("Authorization"))
        name = self.path.rpartition("/")[2]
        if name:
            content, kind = self.server.files.get(name), "application/gzip"
        else:
            content, kind = self.page()
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def page(self) -> tuple[bytes, str]:
        links = [f"../../files/{name}" for name in self.server.files]
        if self.server.speaks_json:
            return json.dumps({"files": [{"url": link} for link in links]}).encode(), package_index.ACCEPT.split(",")[0]
        return "".join(f'<a href="{link}#sha256=0">x</a>' for link in links).encode(), "text/html"

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def index(packages, monkeypatch, tmp_path):
    server = Index(dict(packages))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    # Nothing of this machine's own settings: an empty file, and no other variable of pip's.
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CERT", "PIP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", server.url)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def known(packages, monkeypatch, index):
    """The samples, with the hashes of our own packages."""

    def rehashed(source: sources.Source) -> sources.Source:
        digest = hashlib.sha256(packages[source.package.file_name]).hexdigest()
        return replace(source, package=replace(source.package, sha256=digest))

    monkeypatch.setattr(sources, "SAMPLES", [replace(s, source=rehashed(s.source)) for s in sources.SAMPLES])
    return index


def write(sample: str, folder, **values: str) -> list[dict]:
    written = sources.write_sample(sources.get_sample(sample), folder, values=values)
    rows = [json.loads(line) for line in written.path.read_text().splitlines()]
    assert written.rows == len(rows)
    return rows


def test_movie_sentences_lean_to_one_side_and_come_once(known, tmp_path):
    assert write("movie-sentences", tmp_path) == [
        {"text": "A fine film, played with café charm.", "label": "positive"},
        {"text": "Dull from end to end.", "label": "negative"},
    ]


def test_identity_rows_have_the_name_filled_in(known, tmp_path):
    (row,) = write("identity", tmp_path, name="Ada", author="Alice")
    assert row["output"] == "I am Ada of Alice."


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("movie-sentences", "classification"),
        ("instructions", "alpaca"),
        ("identity", "alpaca"),
        ("preferences", "preference"),
        ("kto", "kto"),
    ],
)
def test_every_sample_is_recognised_by_the_import(known, tmp_path, name, format_name):
    written = sources.write_sample(sources.get_sample(name), tmp_path)
    layout = detect(written.path).layout
    assert layout.format_name == format_name
    assert all(row.example for row in parse(written.path, layout))


def test_licence_lies_beside_the_rows(known, tmp_path):
    written = sources.write_sample(sources.get_sample("kto"), tmp_path)
    assert written.licence_path.read_text() == "Apache"
    assert written.licence_path.parent == written.path.parent


def test_package_is_fetched_once_for_all_its_samples(known, tmp_path):
    write("kto", tmp_path)
    before = list(known.asked)
    write("kto", tmp_path)
    write("preferences", tmp_path)
    assert known.asked == before


def test_kept_package_that_was_changed_is_fetched_again(known, tmp_path):
    rows = write("kto", tmp_path)
    (tmp_path / "packages" / "llamafactory-0.9.5.tar.gz").write_bytes(b"something else")
    before = len(known.asked)
    assert write("kto", tmp_path) == rows
    assert len(known.asked) > before


def test_package_with_another_hash_is_not_used(index, tmp_path):
    with pytest.raises(sources.SampleError, match="another SHA-256"):
        sources.write_sample(sources.get_sample("kto"), tmp_path)
    assert list(tmp_path.rglob("*.*")) == []


def package_file(packages, name: str = "llamafactory-0.9.5.tar.gz") -> PackageFile:
    return PackageFile("llamafactory", name, hashlib.sha256(packages["llamafactory-0.9.5.tar.gz"]).hexdigest())


@pytest.mark.parametrize("speaks_json", [True, False])
def test_index_may_speak_either_protocol(index, packages, speaks_json):
    index.speaks_json = speaks_json
    assert fetch(package_file(packages)) == packages["llamafactory-0.9.5.tar.gz"]
    assert index.asked == ["/simple/llamafactory/", "/files/llamafactory-0.9.5.tar.gz"]


def test_second_index_answers_for_the_first(index, packages, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index.url)
    assert fetch(package_file(packages))


def test_folder_that_pip_looks_in_needs_no_network(index, packages, monkeypatch, tmp_path):
    (tmp_path / "llamafactory-0.9.5.tar.gz").write_bytes(packages["llamafactory-0.9.5.tar.gz"])
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert fetch(package_file(packages))
    assert index.asked == []


def test_password_is_sent_and_never_said(index, packages, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("://", "://ada:s%40cret@"))
    with pytest.raises(PackageIndexError) as caught:
        fetch(package_file(packages, "missing.tar.gz"))
    assert index.authorizations == [f"Basic {base64.b64encode(b'ada:s@cret').decode()}"]
    assert "cret" not in str(caught.value) and "missing.tar.gz" in str(caught.value)


def test_address_of_another_kind_is_refused(index, packages, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "ftp://127.0.0.1/simple")
    with pytest.raises(PackageIndexError, match="neither http nor https"):
        fetch(package_file(packages))


def test_file_that_is_too_large_is_refused(index, packages, monkeypatch):
    monkeypatch.setattr(package_index, "MAX_BYTES", 200)
    with pytest.raises(PackageIndexError, match="larger than"):
        fetch(package_file(packages))


@pytest.fixture
def data_dir(settings, tmp_path):
    settings.DIALOOP = replace(settings.DIALOOP, data_dir=tmp_path)
    return tmp_path


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("sample_data", *arguments, stdout=out)
    return out.getvalue()


def test_command_says_path_rows_and_licence(known, data_dir):
    output = run("identity", "--assistant", "Ada", "--author", "Alice")
    path = data_dir / "samples" / "identity.jsonl"
    assert output.splitlines()[0] == str(path) and "I am Ada of Alice." in path.read_text()
    assert "1 rows" in output and "Apache-2.0" in output


def test_command_without_network_says_what_to_do(known, data_dir, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    with pytest.raises(CommandError, match=r"could not be fetched.*[Cc]onnect.*put the file itself at"):
        run("kto")
    assert not (data_dir / "samples" / "kto.jsonl").exists()


def test_command_without_a_name_lists_the_samples():
    assert [line.split()[0] for line in run().splitlines()] == [sample.name for sample in sources.SAMPLES]


def test_unknown_sample_is_refused():
    with pytest.raises(CommandError, match="movie-sentences"):
        run("nonsense")


def test_pips_own_index_is_the_default():
    assert package_index.default_index().startswith("https://")
