"""Tiny models built on the spot. Bytes are their tokens, and a scripted one writes exactly the text it is told."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import (
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    DistilBertModel,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

START, END = "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VOCABULARY = 258
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "good", "bad", "film", "the", "was", "a", "very", "not")


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte, and the two turn tokens first."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    by_byte = {_letter_of(byte): byte for byte in range(256)}
    assert set(by_byte) == set(letters)
    vocabulary = {START: 0, END: 1} | {letter: 2 + byte for letter, byte in by_byte.items()}
    backend = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=START, eos_token=END, pad_token=END)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _letter_of(byte: int) -> str:
    """GPT-2's visible letter for a byte."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in visible:
        return chr(byte)
    return chr(256 + [other for other in range(256) if other not in visible].index(byte))


def token_of(byte: int) -> int:
    return 2 + byte


def llama_config(**changes: int) -> LlamaConfig:
    values = {
        "vocab_size": VOCABULARY,
        "hidden_size": 264,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "eos_token_id": 1,
        "bos_token_id": 0,
        "pad_token_id": 1,
    }
    return LlamaConfig(**{**values, **changes})


def save_random_llama(folder: Path, *, seed: int = 0, **changes: int) -> Path:
    torch.manual_seed(seed)
    return _save(LlamaForCausalLM(llama_config(**changes)), folder)


def save_scripted_llama(folder: Path, text: bytes, *, endless: bool = False, **changes: int) -> Path:
    """A Llama that, after the line break that ends every prompt, writes `text` and stops, or begins it again.

    What a token is followed by depends on that token alone, so the bytes of `text` must differ from each other.
    """
    assert len(set(text)) == len(text) and b"\n" not in text
    model = LlamaForCausalLM(llama_config(**changes))
    chain = [token_of(byte) for byte in b"\n" + text]
    following = dict(itertools.pairwise(chain))
    following[chain[-1]] = chain[1] if endless else 1
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        for token in range(VOCABULARY):
            model.model.embed_tokens.weight[token, token] = 1.0
        for before, after in following.items():
            model.lm_head.weight[after, before] = 1.0
    return _save(model, folder)


def _save(model: LlamaForCausalLM, folder: Path) -> Path:
    model.generation_config = GenerationConfig(eos_token_id=1, bos_token_id=0, pad_token_id=1)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def word_tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    backend.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=32,
    )


def distilbert_config(**changes: object) -> DistilBertConfig:
    values = {"vocab_size": len(WORDS), "dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "pad_token_id": 0}
    return DistilBertConfig(**{**values, "max_position_embeddings": 32, **changes})


def save_classifier(folder: Path, *, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = distilbert_config(id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1})
    return _save_encoder(DistilBertForSequenceClassification(config), folder)


def save_headless_encoder(folder: Path) -> Path:
    return _save_encoder(DistilBertModel(distilbert_config()), folder)


def save_mask_filler(folder: Path, *, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    return _save_encoder(DistilBertForMaskedLM(distilbert_config()), folder)


def _save_encoder(model: torch.nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def drop_tensor(folder: Path, beginning: str) -> None:
    """Take tensors out of a saved model, as an upload that lost a part would."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(file)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(beginning)}
    assert len(kept) < len(tensors)
    save_file(kept, file, metadata={"format": "pt"})


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
