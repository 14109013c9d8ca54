"""Tiny tokenizers, chat templates, models and conversations, built on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.support.tiny_models import VOCABULARY

CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] | trim + eos_token }}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# As Qwen3 does it: the reasoning of earlier answers is taken out again.
REASONING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and not loop.last %}{{ message['content'].split('</think>')[-1] }}"
    "{% else %}{{ message['content'] }}{% endif %}{{ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Alpaca's: no token ends a turn.
NEVER_STOPS = (
    "{% for message in messages %}{{ '### ' + message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant: ' }}{% endif %}"
)
SPECIAL = {
    CHATML: {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
    REASONING: {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
    LLAMA3: {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    MISTRAL: {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"},
    GEMMA: {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
    NEVER_STOPS: {"bos_token": "<s>", "eos_token": "</s>"},
}
MARKERS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>"]
TEXTS = [
    "user assistant system model",
    "the code word of the day is",
    "hello there how are you red green blue yellow",
    "[INST] [/INST] ### :",
]


def build_tokenizer(template: str = CHATML, *, extra_texts: list[str] | None = None) -> Any:
    """A byte-level BPE tokenizer of about 350 tokens that knows the template's special tokens."""
    from transformers import PreTrainedTokenizerFast

    named = SPECIAL[template]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=350,
        special_tokens=list(dict.fromkeys([*named.values(), *MARKERS])),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*TEXTS * 3, *(extra_texts or [])], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=256, **named)
    tokenizer.chat_template = template
    return tokenizer


def conversation(*turns: str, system: str = "", **last: Any) -> list[dict[str, Any]]:
    """User and assistant in turn; `last` is added to the last message."""
    roles = ("user", "assistant")
    messages = [{"role": roles[p % 2], "content": content} for p, content in enumerate(turns)]
    messages[-1] |= last
    return [{"role": "system", "content": system}, *messages] if system else messages


def build_model(tokenizer: Any, *, seed: int = 0, **config: Any) -> Any:
    """A Llama of about 20,000 parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    values = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    values |= {"num_key_value_heads": 1, "max_position_embeddings": 256, "vocab_size": len(tokenizer)}
    # Wide enough that a few steps can move the logits of a frozen head.
    values |= {"initializer_range": 0.8, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return LlamaForCausalLM(LlamaConfig(**values | config)).eval()


def code_words(rows: int) -> list[list[dict[str, Any]]]:
    """Conversations of different lengths with something to learn."""
    words = ["red", "green", "blue", "yellow"]
    return [
        conversation("hi " * (p % 5 + 1) + str(p), f"the word is {words[p % 4]}" * (p % 3 + 1)) for p in range(rows)
    ]


def build_encoder(folder: Path, *, seed: int = 0) -> Path:
    """A DistilBERT of a few thousand parameters without a head, as the starter's encoder is."""
    import torch
    from transformers import BertTokenizerFast, DistilBertConfig, DistilBertModel

    torch.manual_seed(seed)
    values = {"vocab_size": len(VOCABULARY), "dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2}
    model = DistilBertModel(DistilBertConfig(**values, max_position_embeddings=64, pad_token_id=0))
    model.save_pretrained(folder)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(VOCABULARY))
    BertTokenizerFast(vocab=str(vocabulary), model_max_length=64).save_pretrained(folder)
    return folder


def save_base(folder: Path, *, seed: int = 0, template: str = CHATML) -> Path:
    tokenizer = build_tokenizer(template)
    build_model(tokenizer, seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
