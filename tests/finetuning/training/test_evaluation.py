"""A tuned model beside its base: what got better, what was forgotten, and what a person should know before using it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from finetuning.training.answers import write_answers
from finetuning.training.errors import TrainingMemoryError
from finetuning.training.evaluation import Evaluation, evaluate
from finetuning.training.general import load_general_texts
from finetuning.training.loading import load_base
from finetuning.training.masked_lm import HEADS
from finetuning.training.rendering import ChatRenderer
from finetuning.training.runs import RunOptions
from finetuning.training.specs import Spec
from tests.finetuning.training.builders import build_encoder, code_words, conversation, save_base
from tests.finetuning.training.children import chats, of, run_child, write_rows, write_spec

WORD = [conversation(f"code {p}", "blue") for p in range(24)]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("models") / "tiny-llama")


def train(folder: Path, base: Path, contents, *, method="lora_sft", kind="chat", **values) -> Path:
    """The tuned model's folder, trained by the child's own functions."""
    from finetuning.training.methods import train as train_by_spec

    files = {"train": write_rows(folder / "train.jsonl", contents)}
    values = {"precision": "float32", "max_steps": 30, "learning_rate": 0.05, **values}
    spec = write_spec(
        folder / "run", mode="train", method=method, kind=kind, base=base, files=files, hyperparameters=values
    )
    result = train_by_spec(Spec.read(spec / "spec.json"), RunOptions(folder=spec, use_gpu="false"))
    return Path(result["folders"]["model"])


def evaluate_by(
    folder: Path, base: Path, tuned: Path, contents, *, method="lora_sft", kind="chat", **more
) -> Evaluation:
    folder.mkdir(exist_ok=True)
    files = {"test": write_rows(folder / "test.jsonl", contents)}
    more.setdefault("hyperparameters", {"precision": "float32"})
    write_spec(
        folder / "evaluation", mode="evaluate", method=method, kind=kind, base=base, files=files, tuned=tuned, **more
    )
    spec = Spec.read(folder / "evaluation" / "spec.json")
    options = RunOptions(folder=folder / "evaluation", use_gpu="false", system_prompt=spec.system_prompt)
    return evaluate(spec, options)


def codes(evaluation: Evaluation) -> set[str]:
    return {warning["code"] for warning in evaluation.warnings}


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("tuned"), base, chats(WORD))


@pytest.fixture(scope="module")
def evaluation(base, tuned, tmp_path_factory) -> Evaluation:
    given = [{"messages": [{"role": "user", "content": "code 77"}], "source": "conversation"}]
    return evaluate_by(tmp_path_factory.mktemp("evaluated"), base, tuned, chats(WORD), prompts=given)


def test_held_out_loss_is_lower_after_training(evaluation):
    assert evaluation.after["eval_loss"] < evaluation.before["eval_loss"] - 1
    assert evaluation.after["perplexity"] < evaluation.before["perplexity"]
    assert evaluation.before["rows"] == evaluation.after["rows"] == 24
    assert "worse_than_base" not in codes(evaluation)


def test_both_answer_fixed_held_out_and_given_prompts(evaluation):
    sources = [answer["source"] for answer in evaluation.answers]
    assert sources == ["fixed"] * 8 + ["held out"] * 4 + ["conversation"]
    given = evaluation.answers[-1]
    assert given["prompt"] == "code 77" and given["tuned"] == "blue" != given["base"]
    assert given["tuned_stopped"] is True


def test_stop_rates_are_those_of_the_answers(evaluation):
    for rate, name in ((evaluation.stop_rate_before, "base_stopped"), (evaluation.stop_rate_after, "tuned_stopped")):
        assert rate == pytest.approx(sum(answer[name] for answer in evaluation.answers) / len(evaluation.answers))


def test_model_that_learnt_one_word_by_force_has_forgotten(evaluation):
    assert evaluation.general_after["perplexity"] > 1.2 * evaluation.general_before["perplexity"]
    assert "forgetting" in codes(evaluation)


def test_model_beside_itself_differs_in_nothing(base, tmp_path):
    evaluation = evaluate_by(tmp_path, base, base, chats(code_words(20)))
    assert evaluation.before == evaluation.after and evaluation.general_before == evaluation.general_after
    assert all(answer["base"] == answer["tuned"] for answer in evaluation.answers)
    assert codes(evaluation) == set()


def test_model_that_is_worse_on_held_out_rows_is_named(base, tuned, tmp_path):
    """The other way round: the tuned model as base."""
    assert "worse_than_base" in codes(evaluate_by(tmp_path, tuned, base, chats(WORD)))


def test_model_that_no_longer_ends_its_answers_is_named(base, tuned, tmp_path):
    """Both ways are asked: the one that learnt to stop as base, the one that never learnt it as tuned."""
    evaluation = evaluate_by(tmp_path, tuned, base, chats(WORD))
    assert evaluation.stop_rate_after < evaluation.stop_rate_before - 0.1
    assert "stop_rate" in codes(evaluation)


def test_few_held_out_rows_are_named_and_none_give_no_figures(base, tuned, tmp_path):
    evaluation = evaluate_by(tmp_path, base, tuned, [])
    assert "few_held_out" in codes(evaluation)
    assert evaluation.before == evaluation.after == {} and evaluation.general_after["perplexity"] > 0


def test_prompt_longer_than_the_window_is_left_out(base, tuned, tmp_path):
    given = [{"messages": [{"role": "user", "content": "word " * 300}], "source": "conversation"}]
    evaluation = evaluate_by(tmp_path, base, tuned, chats(WORD[:1]), prompts=given)
    assert "conversation" not in {answer["source"] for answer in evaluation.answers}


def test_general_set_is_large_enough_to_mean_something():
    texts = load_general_texts()
    assert len(texts.sentences) + len(texts.conversations) >= 40
    assert len(set(texts.sentences)) == len(texts.sentences)


def test_answers_written_together_are_those_written_alone(base):
    """Padding on the left must not be seen by the model."""
    loaded = load_base(base, AutoModelForCausalLM)
    renderer = ChatRenderer(loaded.tokenizer)
    prompts = [conversation("hi " * p, "x")[:1] for p in (1, 9, 3, 30)]
    together = write_answers(loaded.model, renderer, prompts, max_new_tokens=12)
    alone = [write_answers(loaded.model, renderer, [prompt], max_new_tokens=12)[0] for prompt in prompts]
    assert together == alone


def pair(number: int) -> dict:
    return {
        "prompt": [{"role": "user", "content": f"code {number}"}],
        "chosen": [{"role": "assistant", "content": "blue"}],
        "rejected": [{"role": "assistant", "content": "red"}],
    }


def rated(number: int) -> dict:
    answer = [{"role": "assistant", "content": "blue" if number % 2 else "red"}]
    return {"prompt": [{"role": "user", "content": f"code {number}"}], "completion": answer, "label": bool(number % 2)}


def test_pairs_are_judged_by_what_the_answers_gained(base, tmp_path):
    pairs = [pair(p) for p in range(24)]
    tuned = train(tmp_path, base, pairs, method="dpo", kind="preference")
    evaluation = evaluate_by(tmp_path, base, tuned, pairs, method="dpo", kind="preference")
    assert evaluation.after["margin"] > 1 and evaluation.after["reward_accuracy"] == 1.0
    assert evaluation.before["margin"] == 0 and evaluation.after["eval_loss"] < evaluation.before["eval_loss"]
    assert evaluation.after["accuracy"] >= evaluation.before["accuracy"]


def test_ratings_are_judged_by_what_the_answers_gained(base, tmp_path):
    rows = [rated(p) for p in range(24)]
    tuned = train(tmp_path, base, rows, method="kto", kind="kto")
    evaluation = evaluate_by(tmp_path, base, tuned, rows, method="kto", kind="kto")
    assert evaluation.after["margin"] > 1 and evaluation.after["reward_accuracy"] > 0.9


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return build_encoder(tmp_path_factory.mktemp("models") / "tiny-encoder")


def labelled(count: int) -> list[dict]:
    feelings = (("good", "positive"), ("bad", "negative"), ("loved", "positive"))
    return [
        {"text": f"the film was {feelings[p % 3][0]} {'. ' * (p % 4)}", "label": feelings[p % 3][1]}
        for p in range(count)
    ]


@pytest.fixture(scope="module")
def classifier(encoder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    values = {"learning_rate": 0.01, "max_steps": 60}
    return train(folder, encoder, labelled(48), method="classification", kind="classification", **values)


def test_classifier_is_measured_and_its_encoder_has_only_the_majority(encoder, classifier, tmp_path):
    kind = {"method": "classification", "kind": "classification"}
    evaluation = evaluate_by(tmp_path, encoder, classifier, labelled(24), **kind)
    after = evaluation.after
    assert after["accuracy"] == after["macro_f1"] == 1.0
    assert after["per_class"].keys() == {"positive", "negative"} == set(after["labels"])
    assert after["confusion"] == [[8, 0], [0, 16]]
    assert evaluation.before == {"majority": pytest.approx(16 / 24), "rows": 24, "has_head": False}
    assert evaluation.answers[0]["tuned"].startswith("positive (") and evaluation.answers[0]["base"] == ""
    assert evaluation.stop_rate_after is None and codes(evaluation) == set()


def test_classifier_beside_an_earlier_one_has_both_figures(classifier, tmp_path):
    kind = {"method": "classification", "kind": "classification"}
    evaluation = evaluate_by(tmp_path, classifier, classifier, labelled(24), **kind)
    assert evaluation.before == evaluation.after


def test_classifier_no_better_than_the_majority_is_named(encoder, classifier, tmp_path):
    contents = [{**content, "label": "negative"} for content in labelled(24)]
    kind = {"method": "classification", "kind": "classification"}
    evaluation = evaluate_by(tmp_path, encoder, classifier, contents, **kind)
    assert "no_better_than_majority" in codes(evaluation)


def test_labels_that_the_model_does_not_know_are_named(encoder, classifier, tmp_path):
    contents = [*labelled(24), {"text": "so so", "label": "neutral"}]
    kind = {"method": "classification", "kind": "classification"}
    evaluation = evaluate_by(tmp_path, encoder, classifier, contents, **kind)
    assert "unknown_labels" in codes(evaluation) and evaluation.after["rows"] == 24


def test_filler_of_masked_tokens_is_measured(encoder, tmp_path):
    contents = [{"text": f"{start} cat sat on the mat"} for start in ("the", "a", "this", "it was the")] * 6
    values = {"learning_rate": 0.01, "max_steps": 60}
    tuned = train(tmp_path, encoder, contents, method="masked_lm", kind="text", **values)
    evaluation = evaluate_by(tmp_path, encoder, tuned, contents, method="masked_lm", kind="text")
    assert evaluation.before == {} and evaluation.after["perplexity"] < 5
    again = evaluate_by(tmp_path, tuned, tuned, contents, method="masked_lm", kind="text")
    assert again.before == again.after == evaluation.after


def test_filler_of_masked_tokens_without_held_out_texts_has_no_figures(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("finetuning.training.encoder_evaluation.load_base", filler(encoder))
    evaluation = evaluate_by(tmp_path, encoder, encoder, [], method="masked_lm", kind="text")
    assert evaluation.before == evaluation.after == {} and codes(evaluation) == {"few_held_out"}


def test_rows_that_cannot_be_used_give_no_figures(base, tuned, tmp_path):
    for method, kind, contents in (
        ("dpo", "preference", [{**pair(1), "rejected": pair(1)["chosen"]}]),
        ("lora_sft", "chat", [{"messages": []}, {"messages": [{"role": "user", "content": "a"}]}]),
    ):
        evaluation = evaluate_by(tmp_path / method, base, tuned, contents, method=method, kind=kind)
        assert evaluation.before == evaluation.after == {} and evaluation.general_after["perplexity"] > 0


def test_rated_answer_is_measured_though_its_neighbour_is_too_long(base, tmp_path):
    rows = [rated(p) for p in range(6)]
    rows[3]["completion"][0]["content"] = "word " * 300
    evaluation = evaluate_by(tmp_path, base, base, rows, method="kto", kind="kto")
    assert evaluation.after["rows"] == 5


@pytest.mark.parametrize(
    ("method", "kind", "content"),
    [
        ("lora_sft", "chat", {"messages": conversation("code 1", "blue")}),
        ("dpo", "preference", pair(1)),
        ("masked_lm", "text", {"text": "the cat sat"}),
    ],
)
def test_evaluation_out_of_memory_asks_for_smaller_batches_of_it(
    base, encoder, tmp_path, monkeypatch, method, kind, content
):
    def exhaust(*_arguments, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    for name in (
        "sft.SftObjective.evaluate",
        "preferences.Answers.log_probabilities",
        "masked_lm.MaskedLmObjective._loss",
    ):
        monkeypatch.setattr(f"finetuning.training.{name}", exhaust)
    monkeypatch.setattr("finetuning.training.encoder_evaluation.load_base", filler(encoder))
    tuned = encoder if method == "masked_lm" else base
    with pytest.raises(TrainingMemoryError) as caught:
        values = {"per_device_eval_batch_size": 8, "precision": "float32"}
        evaluate_by(tmp_path, tuned, tuned, [content], method=method, kind=kind, hyperparameters=values)
    assert caught.value.details["suggestion"] == {"per_device_eval_batch_size": 4}


def filler(encoder: Path):
    """Loads it with a head, though an untrained one."""
    return lambda _folder, kind, **_: load_base(encoder, kind, fresh=HEADS)


def test_answers_are_written_in_batches_of_an_evaluation(base, tuned, tmp_path, monkeypatch):
    from finetuning.training import answers

    sizes = []
    go_on = answers._continue

    def record(model, renderer, prompts, *arguments):
        sizes.append(len(prompts))
        return go_on(model, renderer, prompts, *arguments)

    monkeypatch.setattr(answers, "_continue", record)
    values = {"precision": "float32", "per_device_eval_batch_size": 3}
    evaluate_by(tmp_path, base, tuned, chats(WORD[:2]), hyperparameters=values)
    assert max(sizes) == 3


def test_child_evaluates(base, tuned, tmp_path):
    files = {"test": write_rows(tmp_path / "test.jsonl", chats(WORD))}
    folder = write_spec(
        tmp_path / "job" / "evaluation",
        mode="evaluate",
        method="lora_sft",
        kind="chat",
        base=base,
        files=files,
        tuned=tuned,
        prompts=[],
    )
    last = run_child(folder)
    assert last["event"] == "Succeeded" and json.dumps(last)
    assert last["result"]["after"]["eval_loss"] < last["result"]["before"]["eval_loss"]
    assert of(folder, "Phase")[-1]["name"] in {"evaluating", "loading"}


def test_tuned_model_that_is_broken_fails_with_its_code(base, tuned, tmp_path):
    from finetuning.training.errors import BaseModelError

    broken = shutil.copytree(tuned, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(BaseModelError):
        evaluate_by(tmp_path, base, broken, chats(WORD[:2]))


def test_more_held_out_rows_than_are_worth_the_time_are_sampled_alike(base):
    from finetuning.training.side import MAX_HELD_OUT, sample_rows

    rows = list(range(5 * MAX_HELD_OUT))
    assert len(sample_rows(rows, seed=1)) == MAX_HELD_OUT
    assert sample_rows(rows, seed=1) == sample_rows(rows, seed=1) != sample_rows(rows, seed=2)
