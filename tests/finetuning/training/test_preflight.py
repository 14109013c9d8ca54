"""The report before a run: what hurts people silently in fine-tuning is found here, each by a check of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from finetuning.training.checks import Findings, check_rows
from finetuning.training.hyperparameters import Method
from finetuning.training.preflight import preflight
from finetuning.training.rendering import ChatRenderer
from finetuning.training.runs import RunOptions
from finetuning.training.specs import Spec
from tests.finetuning.training.builders import (
    CHATML,
    LLAMA3,
    NEVER_STOPS,
    build_encoder,
    build_model,
    build_tokenizer,
    code_words,
    conversation,
    save_base,
)
from tests.finetuning.training.children import chats, write_rows, write_spec


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return build_encoder(tmp_path_factory.mktemp("models") / "tiny-encoder")


def report_on(folder: Path, base: Path, contents, *, held_out=(), method="lora_sft", kind="chat", **more) -> dict:
    files = {"train": write_rows(folder / "train.jsonl", contents)}
    if held_out:
        files["validation"] = write_rows(folder / "validation.jsonl", held_out)
    more.setdefault("hyperparameters", {"precision": "float32"})
    write_spec(folder / "run", mode="preflight", method=method, kind=kind, base=base, files=files, **more)
    spec = Spec.read(folder / "run" / "spec.json")
    report = preflight(spec, RunOptions(folder=folder / "run", use_gpu="false", system_prompt=spec.system_prompt))
    json.dumps(report)
    return report


def codes(findings) -> set[str]:
    return {finding["code"] for finding in findings}


def pair(number: int, chosen: str = "blue", rejected: str = "red") -> dict:
    return {
        "prompt": [{"role": "user", "content": f"code {number}"}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def rated(number: int, *, is_good: bool) -> dict:
    answer = [{"role": "assistant", "content": "blue"}]
    return {"prompt": [{"role": "user", "content": f"code {number}"}], "completion": answer, "label": is_good}


def test_good_data_has_no_findings_and_an_estimate(base, tmp_path):
    report = report_on(tmp_path, base, chats(code_words(24)), held_out=chats([conversation("hi", "green")]))
    assert (report["errors"], report["warnings"], report["excluded"], report["cut"]) == ([], [], [], 0)
    assert report["rows"] == report["sequences"] == 24
    assert report["estimate"]["seconds"] > 0 and report["estimate"]["peak_memory_bytes"] > 10**7
    assert report["estimate"]["longest_row"] == max(sample["tokens"] for sample in report["samples"])
    assert report["hyperparameters"]["num_train_epochs"] == 3 and report["hyperparameters"]["lora_r"] == 16
    assert sum(report["length_histogram"].values()) == 24


def test_r1_stop_token_that_is_the_pad_token_too_is_trained_in_every_sample(base, tmp_path):
    report = report_on(tmp_path, base, chats(code_words(12)))
    assert build_tokenizer().pad_token == build_tokenizer().eos_token == "<|im_end|>"
    for sample in report["samples"]:
        trained = [piece["text"] for piece in sample["pieces"] if piece["is_trained"]]
        assert trained and all(text.endswith("<|im_end|>") for text in trained)


def test_r1_template_without_stop_token_forbids_the_run(tmp_path):
    endless = save_base(tmp_path / "base", template=NEVER_STOPS)
    report = report_on(tmp_path, endless, chats(code_words(12)))
    assert "missing_stop_token" in codes(report["errors"])
    assert report["estimate"] is None and report["excluded_codes"] == {"missing_stop_token": 12}


def test_r1_is_asked_of_what_is_really_trained(base, tmp_path, monkeypatch):
    """A renderer that masked its pad token, and with it the stop token, would be caught."""
    render = ChatRenderer.render

    def masked_by_id(self, messages):
        sequences = render(self, messages)
        for sequence in sequences:
            sequence.is_trained[sequence.input_ids == self.tokenizer.pad_token_id] = False
        return sequences

    monkeypatch.setattr(ChatRenderer, "render", masked_by_id)
    report = report_on(tmp_path, base, chats(code_words(12)))
    assert codes(report["errors"]) == {"missing_stop_token"}


def test_r1_answers_cut_before_their_end_forbid_the_run(base, tmp_path):
    contents = chats([conversation("hi", "word " * 30) for _ in range(12)])
    report = report_on(tmp_path, base, contents, hyperparameters={"max_length": 40})
    assert "stop_token_cut" in codes(report["errors"])
    assert report["cut"] == 12 and report["cut_tokens"] > 0


def test_r2_trained_share_is_shown_and_lies_between(base, tmp_path):
    report = report_on(tmp_path, base, chats(code_words(12)))
    assert 0 < report["trained_share"] == report["trained_tokens"] / report["tokens"] < 1


@pytest.mark.parametrize("everything", [True, False])
def test_r2_mask_of_all_or_nothing_forbids_the_run(base, tmp_path, monkeypatch, everything):
    render = ChatRenderer.render

    def wrong(self, messages):
        sequences = render(self, messages)
        for sequence in sequences:
            sequence.is_trained[:] = everything
        return sequences

    monkeypatch.setattr(ChatRenderer, "render", wrong)
    report = report_on(tmp_path, base, chats(code_words(12)))
    assert "trained_share" in codes(report["errors"])


def test_r3_hash_covers_template_and_system_prompt(base, tmp_path):
    plain = report_on(tmp_path, base, chats(code_words(12)))
    prompted = report_on(tmp_path, base, chats(code_words(12)), system_prompt="Be brief.")
    assert prompted["system_prompt"] == "Be brief."
    assert len({plain["template_hash"], prompted["template_hash"]}) == 2
    assert "Be brief." in prompted["samples"][0]["pieces"][0]["text"]


def test_r3_rows_with_system_prompts_of_their_own_are_named(base, tmp_path):
    contents = chats([conversation("hi", "blue", system="Be long.")] * 3 + code_words(12))
    report = report_on(tmp_path, base, contents, system_prompt="Be brief.")
    (finding,) = [finding for finding in report["warnings"] if finding["code"] == "own_system_prompts"]
    assert finding["message"].startswith("3 of 15 rows")
    same = chats([conversation("hi", "blue", system="Be brief.")] * 3 + code_words(12))
    assert "own_system_prompts" not in codes(report_on(tmp_path, base, same, system_prompt="Be brief.")["warnings"])


@pytest.mark.parametrize(("method", "kind"), [("dpo", "preference"), ("kto", "kto")])
def test_r3_compared_answers_with_system_prompts_of_their_own_are_named(base, tmp_path, method, kind):
    contents = [pair(p) if method == "dpo" else rated(p, is_good=p % 2 == 0) for p in range(12)]
    for content in contents[:3]:
        content["prompt"].insert(0, {"role": "system", "content": "Be long."})
    report = report_on(tmp_path, base, contents, method=method, kind=kind, system_prompt="Be brief.")
    (finding,) = [finding for finding in report["warnings"] if finding["code"] == "own_system_prompts"]
    assert finding["message"].startswith("3 of 12 rows")


def test_r3_base_trained_with_another_system_prompt_is_named(tmp_path):
    ours = save_base(tmp_path / "base")
    trained_with = ChatRenderer(build_tokenizer(), system_prompt="Be long.").template_hash
    manifest = {"origin": {"template_hash": trained_with, "system_prompt": "Be long."}, "files": {}}
    (ours / "manifest.json").write_text(json.dumps(manifest))
    report = report_on(tmp_path, ours, chats(code_words(12)), system_prompt="Be brief.")
    (finding,) = [finding for finding in report["warnings"] if finding["code"] == "template_changed"]
    assert "another system prompt" in finding["message"]
    same = report_on(tmp_path, ours, chats(code_words(12)), system_prompt="Be long.")
    assert "template_changed" not in codes(same["warnings"])


def test_r3_tokens_before_an_answer_that_chat_would_not_give_are_named(tmp_path):
    """`\\n\\n` is one token: in training the first answer is split from its prompt, in a later prompt it is not."""
    folder = tmp_path / "base"
    tokenizer = build_tokenizer(CHATML, extra_texts=["\n\n"] * 50)
    build_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    report = report_on(tmp_path, folder, chats([conversation("a", "\n\nb", "c", "d")] * 4 + code_words(12)))
    (finding,) = [finding for finding in report["warnings"] if finding["code"] == "prompt_differs"]
    assert finding["message"].startswith("In 4 of 16 rows")


def test_r4_double_bos_forbids_the_run(tmp_path):
    folder = tmp_path / "base"
    tokenizer = build_tokenizer(LLAMA3)
    build_model(tokenizer).save_pretrained(folder)
    tokenizer.chat_template = "{{ bos_token }}" + LLAMA3
    tokenizer.save_pretrained(folder)
    report = report_on(tmp_path, folder, chats(code_words(12)))
    assert "double_bos" in codes(report["errors"])


def test_r9_bad_rows_are_named_and_do_not_end_the_run(base, tmp_path):
    bad = [
        {"messages": conversation("a", "b", weight=0)},
        {"messages": [{"role": "robot", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"text": "not a conversation"},
        {"messages": conversation("word " * 300, "b")},
    ]
    report = report_on(tmp_path, base, [*chats(code_words(12)), *bad])
    assert [(item["row"], item["id"], item["code"]) for item in report["excluded"]] == [
        (12, 1012, "trained_share"),
        (13, 1013, "conversation"),
        (14, 1014, "form"),
        (15, 1015, "too_long"),
    ]
    assert report["errors"] == [] and "rows_excluded" in codes(report["warnings"])
    assert report["sequences"] == 12 and sum(report["excluded_codes"].values()) == 4


def test_r9_no_row_that_can_be_used_forbids_the_run(base, tmp_path):
    report = report_on(tmp_path, base, chats([conversation("a", "b", weight=0)] * 12))
    assert "most_rows_excluded" in codes(report["errors"]) and report["excluded_codes"] == {"trained_share": 12}


HALF = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8, "per_device_eval_batch_size": 4}


@pytest.mark.parametrize(("where", "suggestion"), [("loss", HALF), ("evaluate", {"per_device_eval_batch_size": 4})])
def test_r10_what_does_not_fit_into_memory_is_known_before_the_run(base, tmp_path, monkeypatch, where, suggestion):
    def exhaust(*_arguments):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(f"finetuning.training.sft.SftObjective.{where}", exhaust)
    report = report_on(tmp_path, base, chats(code_words(12)), held_out=chats(code_words(2)))
    (finding,) = report["errors"]
    assert (finding["code"], finding["suggestion"]) == ("out_of_memory", suggestion)


def test_r10_longest_batch_and_one_evaluation_batch_are_tried(base, tmp_path, monkeypatch):
    from finetuning.training.sft import SftObjective

    seen = []
    loss = SftObjective._loss

    def record(self, sequences, rows):
        seen.append((sequences is self._held_out, max(len(sequences[row]) for row in rows), len(rows)))
        return loss(self, sequences, rows)

    monkeypatch.setattr(SftObjective, "_loss", record)
    held_out = chats([conversation("hi " * p, "blue") for p in range(1, 21)])
    report = report_on(tmp_path, base, chats(code_words(30)), held_out=held_out)
    longest = max(sample["tokens"] for sample in report["samples"])
    assert (False, longest, 4) in seen
    (evaluated,) = [entry for entry in seen if entry[0]]
    assert evaluated[1] > 40 and evaluated[2] == 8


def test_r16_ratings_of_one_kind_forbid_the_run(base, tmp_path):
    contents = [rated(p, is_good=True) for p in range(60)]
    report = report_on(tmp_path, base, contents, method="kto", kind="kto")
    assert codes(report["errors"]) == {"one_rating"} and report["labels"] == {"good": 60}


def test_rated_answer_is_left_out_for_its_own_length_alone(base, tmp_path):
    """Its loss needs an answer that belongs to another row: which one does not matter."""
    contents = [rated(p, is_good=p % 4 < 2) for p in range(20)]
    for content in contents[::3]:
        content["completion"][0]["content"] = "word " * 60
    report = report_on(tmp_path, base, contents, method="kto", kind="kto", hyperparameters={"max_length": 80})
    assert [item["row"] for item in report["excluded"]] == list(range(0, 20, 3))
    assert report["errors"] == [] and report["sequences"] == 13


@pytest.mark.parametrize(("good", "bad"), [(30, 30), (40, 20), (12, 48), (50, 10), (32, 28)])
def test_r16_weights_bring_ratings_to_between_one_to_one_and_four_to_three(base, tmp_path, good, bad):
    contents = [rated(p, is_good=p < good) for p in range(good + bad)]
    report = report_on(tmp_path, base, contents, method="kto", kind="kto")
    values = report["hyperparameters"]
    ratio = values["desirable_weight"] * good / (values["undesirable_weight"] * bad)
    assert 0.999 <= ratio <= 4 / 3 + 0.001 and min(values["desirable_weight"], values["undesirable_weight"]) == 1
    assert report["errors"] == [] and "kto_weights" not in codes(report["warnings"])


def test_r16_weights_that_somebody_chose_are_kept_and_judged(base, tmp_path):
    contents = [rated(p, is_good=p < 50) for p in range(60)]
    chosen = {"desirable_weight": 2.0}
    report = report_on(tmp_path, base, contents, method="kto", kind="kto", hyperparameters=chosen)
    assert report["hyperparameters"]["desirable_weight"] == 2.0 and "kto_weights" in codes(report["warnings"])


def test_too_few_rows_forbid_the_run_and_few_preferences_are_named(base, tmp_path):
    assert "too_few_rows" in codes(report_on(tmp_path, base, chats(code_words(9)))["errors"])
    pairs = [pair(p) for p in range(12)]
    few = report_on(tmp_path, base, pairs, method="dpo", kind="preference")
    assert few["errors"] == [] and "few_rows" in codes(few["warnings"])
    pairs = [pair(p) for p in range(60)]
    assert "few_rows" not in codes(report_on(tmp_path, base, pairs, method="dpo", kind="preference")["warnings"])


@pytest.mark.parametrize(("rows", "held_out", "is_enough"), [(9, 1, True), (8, 1, False), (0, 12, False)])
def test_held_out_rows_count_towards_the_least(rows, held_out, is_enough):
    found = Findings()
    check_rows(found, Method.LORA_SFT, rows=rows, held_out=held_out)
    assert ("too_few_rows" not in codes(found.errors)) is is_enough


def test_better_answers_that_are_the_longer_ones_are_named(base, tmp_path):
    biased = [pair(p, "blue " * 12, "red") for p in range(12)]
    assert "length_bias" in codes(report_on(tmp_path, base, biased, method="dpo", kind="preference")["warnings"])
    even = [pair(p, *(("blue", "red") if p % 2 else ("red", "blue"))) for p in range(12)]
    assert "length_bias" not in codes(report_on(tmp_path, base, even, method="dpo", kind="preference")["warnings"])


def test_pairs_are_shown_with_both_answers_and_equal_ones_are_left_out(base, tmp_path):
    contents = [*(pair(p) for p in range(12)), pair(99, "same", "same")]
    report = report_on(tmp_path, base, contents, method="dpo", kind="preference")
    assert {sample["title"] for sample in report["samples"]} == {"chosen", "rejected"}
    assert [item["id"] for item in report["excluded"]] == [1012]


def labelled(count: int, *labels: str) -> list[dict]:
    return [{"text": f"the film was good {p}", "label": labels[p % len(labels)]} for p in range(count)]


def test_labels_are_counted_and_texts_shown(encoder, tmp_path):
    report = report_on(
        tmp_path,
        encoder,
        labelled(30, "yes", "no"),
        held_out=labelled(4, "yes"),
        method="classification",
        kind="classification",
    )
    assert report["labels"] == {"yes": 15, "no": 15} and report["errors"] == []
    assert report["samples"][0]["pieces"][0]["text"].startswith("[CLS]")
    assert report["estimate"]["total_steps"] == 3


def test_one_label_or_unknown_ones_forbid_the_run(encoder, tmp_path):
    kind = {"method": "classification", "kind": "classification"}
    assert codes(report_on(tmp_path, encoder, labelled(12, "yes"), **kind)["errors"]) == {"one_label"}
    report = report_on(tmp_path, encoder, labelled(12, "yes", "no"), held_out=labelled(2, "perhaps"), **kind)
    assert codes(report["errors"]) == {"unknown_labels"}


def test_texts_for_masking_are_checked_too(encoder, tmp_path):
    contents = [{"text": f"the cat sat on the mat {p}"} for p in range(12)]
    report = report_on(tmp_path, encoder, contents, method="masked_lm", kind="text")
    assert report["errors"] == [] and report["estimate"]["seconds"] > 0


def test_held_out_rows_that_are_trained_on_are_named(base, tmp_path):
    report = report_on(tmp_path, base, chats(code_words(12)), held_out=chats(code_words(2)))
    assert "leak" in codes(report["warnings"])


def unusable(kind: str) -> dict:
    if kind == "chat":
        return {"messages": conversation("a", "b", weight=0)}
    return {"text": "\u200b"} if kind == "text" else pair(1, "same", "same") if kind == "preference" else {"no": "form"}


@pytest.mark.parametrize(
    ("method", "kind"), [("lora_sft", "chat"), ("dpo", "preference"), ("kto", "kto"), ("masked_lm", "text")]
)
def test_held_out_rows_of_which_none_can_be_used_are_named_and_done_without(base, encoder, tmp_path, method, kind):
    contents = {
        "chat": chats(code_words(12)),
        "preference": [pair(p) for p in range(12)],
        "kto": [rated(p, is_good=p % 2 == 0) for p in range(12)],
        "text": [{"text": f"the cat sat on the mat {p}"} for p in range(12)],
    }[kind]
    held_out = [unusable(kind)] * 2
    folder = encoder if kind == "text" else base
    report = report_on(tmp_path, folder, contents, held_out=held_out, method=method, kind=kind)
    assert (report["errors"], report["excluded"], report["rows"]) == ([], [], 12)
    (finding,) = [finding for finding in report["warnings"] if finding["code"] == "held_out_unusable"]
    assert finding["message"].startswith("None of the 2 held-out rows")
    assert "no_validation" not in codes(report["warnings"]) and report["estimate"]["seconds"] > 0


def test_base_that_is_not_there_forbids_the_run(tmp_path):
    assert codes(report_on(tmp_path, tmp_path / "nowhere", chats(code_words(12)))["errors"]) == {"base_model"}


def test_disk_that_is_too_small_forbids_the_run(base, tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("finetuning.training.preflight.shutil.disk_usage", lambda _folder: usage)
    assert "disk" in codes(report_on(tmp_path, base, chats(code_words(12)))["errors"])
