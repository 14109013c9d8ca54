"""`manage.py setup`: everything from nothing, and nothing from everything."""

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from cryptography.fernet import Fernet
from django.contrib.staticfiles.finders import get_finder
from django.core.exceptions import ImproperlyConfigured

from config.app_settings import get_settings
from config.management.commands.setup import Command, ProgressBar, refuse_missing_gpu, refuse_unknown_models
from config.static_files import STAMP, collect_static_files
from models_hub import encryption, provider_keys, services
from models_hub.models import Connection, RegisteredModel
from tests.support.product import BASE_DIR, Product

SETUP_WITHOUT_TORCH = """
import sys
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "setup"])
print("heavy:", sorted({"torch", "transformers"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def product(tmp_path_factory) -> Product:
    return Product(tmp_path_factory.mktemp("instance"))


@pytest.mark.engine
def test_first_time_makes_everything_and_second_time_nothing(product):
    first = product.manage("setup")
    assert "Preparing the database" in first
    assert (
        f"First admin: open this link once, and choose a password: {product.address}/accounts/password/reset/key/"
        in first
    )
    settings = product.settings
    assert stat.S_IMODE(settings.runtime_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(settings.data_dir.stat().st_mode) == 0o700
    assert (settings.model_cache_dir / "smollm2-135m-instruct" / "model.safetensors").is_file()
    stamp = (settings.data_dir / "static" / STAMP).stat().st_mtime_ns

    second = subprocess.run(
        [sys.executable, "-c", SETUP_WITHOUT_TORCH],
        cwd=BASE_DIR,
        env={**product.environment, "DJANGO_SETTINGS_MODULE": "config.settings"},
        capture_output=True,
        text=True,
        check=True,
    )
    link, heavy = second.stdout.splitlines()
    assert link.startswith("First admin:")  # nobody has used it yet
    assert heavy == "heavy: []"
    assert (settings.data_dir / "static" / STAMP).stat().st_mtime_ns == stamp


@pytest.mark.engine
def test_admin_from_the_environment_needs_no_link(tmp_path):
    variables = {"USERNAME": "root", "EMAIL": "root@example.org", "PASSWORD": "correct horse battery"}
    product = Product(tmp_path, **{f"DJANGO_SUPERUSER_{name}": value for name, value in variables.items()})
    output = product.manage("setup")
    assert "First admin" not in output
    with closing(sqlite3.connect(product.settings.data_dir / "dialoop.sqlite3")) as database:
        users = database.execute("SELECT username, is_superuser FROM accounts_user").fetchall()
    assert users == [("root", 1)]


def run_setup_command(product: Product, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "setup"],
        cwd=BASE_DIR,
        env={**product.environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_unreachable_database_is_one_sentence(tmp_path):
    product = Product(tmp_path, DATABASE_URL=f"sqlite:///{tmp_path}/missing/folder/dialoop.sqlite3")
    result = run_setup_command(product)
    assert result.returncode == 1
    assert result.stderr.strip() == (
        "CommandError: The database of DATABASE_URL cannot be reached: unable to open database file"
    )


def test_gpu_that_is_not_there_stops_the_setup_with_one_sentence(tmp_path):
    product = Product(tmp_path, USE_GPU="true", CUDA_VISIBLE_DEVICES="")
    result = run_setup_command(product)
    assert result.returncode == 2
    assert result.stderr == "dialoop: USE_GPU is true, but PyTorch sees no GPU here: set it to auto or false.\n"


@pytest.mark.parametrize(
    ("probe", "engine", "use_gpu"),
    [
        ("raise SystemExit(1)", "http://127.0.0.1:8010", "auto"),
        ("raise SystemExit(1)", "http://127.0.0.1:8010", "false"),
        ("raise SystemExit(1)", "http://gpu.example.org:8010", "true"),  # it is wanted there, not here
        ("", "http://127.0.0.1:8010", "true"),
    ],
)
def test_only_who_insists_on_a_gpu_here_needs_one(monkeypatch, probe, engine, use_gpu):
    monkeypatch.setattr("config.management.commands.setup.GPU_PROBE", probe)
    refuse_missing_gpu(replace(get_settings(), engine_url=engine, use_gpu=use_gpu))


@pytest.mark.django_db
def test_secrets_whose_key_is_lost_are_named_and_stop_nothing(settings, alice, tmp_path):
    old, first, last = (Fernet.generate_key().decode() for _ in range(3))
    secret = generate_totp_secret()

    def use(*keys: str) -> None:
        settings.DIALOOP = replace(settings.DIALOOP, model_cache_dir=tmp_path, encryption_keys=keys)

    use(old)
    services.create_connection("Mine", kind="openai_chat", api_key="sk-lost")
    use(first)
    services.create_connection("Yours", kind="openai_chat", api_key="sk-kept")
    TOTP.activate(alice, secret)
    use(last, first)
    said = StringIO()
    Command(stderr=said, no_color=True).rotate_encryption()
    assert said.getvalue().count("\n") == 1
    assert "Mine" in said.getvalue() and "ENCRYPTION_KEYS" in said.getvalue()
    use(last)
    assert provider_keys.get_api_key(Connection.objects.get(name="Yours")) == "sk-kept"
    assert encryption.decrypt(alice.authenticator_set.get().data["secret"]) == secret


@pytest.mark.engine
def test_setup_ends_well_with_a_connection_whose_key_is_lost(product):
    product.manage("setup")
    make = "from models_hub import services; services.create_connection('Mine', kind='openai_chat', api_key='sk-lost')"
    product.manage("shell", "-c", make)
    result = run_setup_command(product, ENCRYPTION_KEYS=Fernet.generate_key().decode())
    assert result.returncode == 0
    [sentence] = [line for line in result.stderr.splitlines() if "Mine" in line]
    assert "ENCRYPTION_KEYS" in sentence
    assert "Traceback" not in result.stderr


@pytest.fixture
def small_site(settings, tmp_path):
    """One static file of our own, instead of the hundreds there are."""
    source = tmp_path / "static"
    source.mkdir()
    (source / "page.css").write_text("a {}")
    settings.STATIC_ROOT = tmp_path / "collected"
    settings.STATICFILES_DIRS = [source]
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    get_finder.cache_clear()
    yield source
    get_finder.cache_clear()


def test_static_files_are_collected_once(small_site, settings):
    assert collect_static_files()
    assert (settings.STATIC_ROOT / "page.css").read_text() == "a {}"
    assert not collect_static_files()


def test_changed_static_file_is_collected_again(small_site, settings):
    collect_static_files()
    (small_site / "page.css").write_text("a { color: red }")
    assert collect_static_files()
    assert (settings.STATIC_ROOT / "page.css").read_text() == "a { color: red }"


def test_removed_static_file_goes(small_site, settings):
    (small_site / "old.css").write_text("b {}")
    collect_static_files()
    (small_site / "old.css").unlink()
    assert collect_static_files()
    assert not (settings.STATIC_ROOT / "old.css").exists()


def test_interrupted_collection_is_done_again(small_site, settings):
    collect_static_files()
    (settings.STATIC_ROOT / STAMP).unlink()
    assert collect_static_files()


def record_bar(*, is_terminal: bool, patience: float = 0.0) -> tuple[ProgressBar, list[str]]:
    written: list[str] = []
    bar = ProgressBar(
        lambda text, ending="\n": written.append(text + ending), is_terminal=is_terminal, patience=patience
    )
    return bar, written


def test_progress_on_a_terminal_stays_on_one_line():
    bar, written = record_bar(is_terminal=True)
    bar.show("Unpacking", 0.5)
    bar.show("Saving", 1.0)
    bar.finish()
    assert [text.count("\n") for text in written] == [0, 0, 1]
    assert " 50% Unpacking" in written[0] and written[0].startswith("\r")


def test_progress_elsewhere_is_a_line_for_each_step():
    bar, written = record_bar(is_terminal=False)
    bar.show("Unpacking", 0.5)
    bar.show("Unpacking", 0.6)
    bar.show("Saving", 1.0)
    bar.finish()
    assert [text.split("% ")[1] for text in written] == ["Unpacking\n", "Saving\n"]


def test_progress_is_silent_about_what_is_quick():
    bar, written = record_bar(is_terminal=True, patience=60.0)
    bar.show("Checking", 0.5)
    bar.finish()
    assert written == []


SCRIPTS = ("script/setup", "script/server", "script/test", ".ci/run")


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_and_well_formed(script):
    path = BASE_DIR / script
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_set_up_refuses_an_unusable_python(tmp_path):
    result = run_setup(tmp_path, PYTHON="/bin/false")
    assert result.returncode == 1
    assert result.stderr == "dialoop: PYTHON is /bin/false, which is not a Python 3.11 or newer with the venv module.\n"
    assert not (tmp_path / "venv").exists()


def test_set_up_names_an_unknown_option(tmp_path):
    result = run_setup(tmp_path, "--fast")
    assert result.returncode == 1
    assert result.stderr == "dialoop: script/setup does not know the option --fast.\n"


def run_setup(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BASE_DIR / "script" / "setup"), *options],
        cwd=folder,
        env={**os.environ, "VENV": str(folder / "venv"), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["DEFAULT_MODEL", "FALLBACK_MODEL"])
def test_model_nobody_has_heard_of_stops_the_setup_and_one_that_is_down_does_not(name):
    connection = Connection.objects.create(name="Down", kind=Connection.Kind.OPENAI_CHAT, is_enabled=False)
    RegisteredModel.objects.create(slug="known", name="Known", connection=connection, is_enabled=False)
    settings = replace(get_settings(), default_model="known@production", fallback_model="")
    refuse_unknown_models(settings)
    with pytest.raises(ImproperlyConfigured, match=f"^{name} is 'unknown', "):
        refuse_unknown_models(replace(settings, **{name.lower(): "unknown"}))
