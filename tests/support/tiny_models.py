"""Tiny BERT-like models with fixed random weights, built on the spot. Imports torch: only for a process of its own."""

from __future__ import annotations

from pathlib import Path

WORDS = "the a cat dog sat ran on mat good bad very film was is and loved hated this it . , ! ?".split()  # noqa: SIM905
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *WORDS,
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
]


def build_tiny_models(cache_dir: Path) -> None:
    """Writes the folders `tiny-classifier` and `tiny-mask-filler` unless they are there."""
    import torch
    from transformers import DistilBertConfig, DistilBertForMaskedLM, DistilBertForSequenceClassification

    values = {"vocab_size": len(VOCABULARY), "dim": 32, "hidden_dim": 64, "n_layers": 1, "n_heads": 2}
    values |= {"max_position_embeddings": 64, "pad_token_id": 0}
    labels = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    torch.manual_seed(1)
    _save(DistilBertForSequenceClassification(DistilBertConfig(**values, **labels)), cache_dir / "tiny-classifier")
    _save(DistilBertForMaskedLM(DistilBertConfig(**values)), cache_dir / "tiny-mask-filler")


def _save(model, folder: Path) -> None:
    from transformers import BertTokenizerFast

    if (folder / "config.json").is_file():
        return
    model.save_pretrained(folder)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(VOCABULARY))
    BertTokenizerFast(vocab=str(vocabulary), model_max_length=64).save_pretrained(folder)
