"""What the pages about jobs say of methods, hyperparameters, failures and measures: one place for all the sentences."""

from __future__ import annotations

from dataclasses import dataclass, field

from finetuning.training.hyperparameters import PRECISIONS, SCHEDULES, Method


@dataclass(frozen=True)
class MethodWords:
    name: str
    sentence: str
    needs: str


METHODS: dict[Method, MethodWords] = {
    Method.LORA_SFT: MethodWords(
        "LoRA fine-tuning",
        "Teaches a chat model to answer like your examples by training a small addition to it. The usual choice.",
        "conversations",
    ),
    Method.FULL_SFT: MethodWords(
        "Full fine-tuning",
        "Trains every weight of a chat model. Takes more memory, and forgets more easily; worth it with much data.",
        "conversations",
    ),
    Method.DPO: MethodWords(
        "Preference pairs (DPO)",
        "Learns from pairs of a better and a worse answer, such as corrections and choices between answers.",
        "preference pairs",
    ),
    Method.KTO: MethodWords(
        "Rated answers (KTO)",
        "Learns from single answers that people rated good or bad. It needs both kinds.",
        "rated answers",
    ),
    Method.CLASSIFICATION: MethodWords(
        "Text classification",
        "Trains an encoder such as DistilBERT to put each text under one of your labels.",
        "labelled texts",
    ),
    Method.MASKED_LM: MethodWords(
        "Masked-token training",
        "Lets an encoder read plain texts of your field and fill in hidden words, before it is taught labels.",
        "plain or labelled texts",
    ),
}


@dataclass(frozen=True)
class Field:
    """A hyperparameter in the form. `kind` is whole, number, switch or choice."""

    label: str
    help: str
    kind: str = "number"
    choices: tuple[str, ...] = ()
    methods: frozenset[Method] = frozenset(Method)


CAUSAL = frozenset({Method.LORA_SFT, Method.FULL_SFT, Method.DPO, Method.KTO})
ADAPTERS = frozenset({Method.LORA_SFT, Method.DPO, Method.KTO})
PREFERENCES = frozenset({Method.DPO, Method.KTO})

# In the order of the form: what people change first comes first.
FIELDS: dict[str, Field] = {
    "num_train_epochs": Field("Epochs", "How often every row is seen. Few rows need more, many rows fewer.", "whole"),
    "learning_rate": Field(
        "Learning rate",
        "How far a step goes. LoRA bears about ten times that of full fine-tuning; preferences want tiny steps.",
    ),
    "per_device_train_batch_size": Field(
        "Batch size", "Rows at once. Half of it needs about half the memory.", "whole"
    ),
    "gradient_accumulation_steps": Field(
        "Accumulated batches", "Batches to one step: batch size times this is the effective batch.", "whole"
    ),
    "max_length": Field("Longest row, in tokens", "Memory grows with it.", "whole"),
    "lora_r": Field("LoRA rank", "The size of the addition. 16 is enough for most things.", "whole", methods=ADAPTERS),
    "lora_alpha": Field("LoRA alpha", "Its weight: twice the rank.", "whole", methods=ADAPTERS),
    "lora_dropout": Field(
        "LoRA dropout", "0 for short runs; 0.05 against learning few rows by heart.", methods=ADAPTERS
    ),
    "beta": Field("Beta", "How close the model stays to what it was. Higher is closer.", methods=PREFERENCES),
    "desirable_weight": Field(
        "Weight of good answers",
        "By default such that good and bad count about the same.",
        methods=frozenset({Method.KTO}),
    ),
    "undesirable_weight": Field(
        "Weight of bad answers",
        "By default such that good and bad count about the same.",
        methods=frozenset({Method.KTO}),
    ),
    "mlm_probability": Field("Share of hidden tokens", "0.15 as in BERT.", methods=frozenset({Method.MASKED_LM})),
    "lr_scheduler_type": Field("Course of the learning rate", "How it falls towards the end.", "choice", SCHEDULES),
    "warmup_steps": Field("Warm-up", "Below 1 a share of all steps, else so many steps, in which the rate grows."),
    "weight_decay": Field("Weight decay", "Pulls weights towards zero. Encoders want 0.01."),
    "max_grad_norm": Field("Longest gradient", "Longer ones are shortened to it, so that one odd row breaks nothing."),
    "max_steps": Field("Stop after steps", "0 goes by epochs.", "whole"),
    "eval_steps": Field("Evaluate every … steps", "0: after each epoch.", "whole"),
    "early_stopping_patience": Field(
        "Patience",
        "Ends after so many evaluations without progress; the best one is kept. 0 never ends early.",
        "whole",
    ),
    "per_device_eval_batch_size": Field("Batch size of evaluations", "Needs less memory than training.", "whole"),
    "gradient_checkpointing": Field(
        "Save memory by computing twice", "A third slower, far less memory for long rows.", "choice", ("false", "true")
    ),
    "precision": Field("Precision", "auto measures which one is faster here.", "choice", PRECISIONS),
    "seed": Field("Seed", "The same seed and data give the same run.", "whole"),
}

IS_CUT = "What is longer is cut. By default 99 of 100 rows fit whole."
IS_LEFT_OUT = "A longer row is left out whole, for a cut answer is another one. By default: what the model can read."

REASONS: dict[str, dict[Method, str]] = {
    "learning_rate": {
        Method.LORA_SFT: "2e-4: about ten times full fine-tuning, nearly whatever the rank.",
        Method.FULL_SFT: "2e-5: every weight moves, so each moves little.",
        Method.DPO: "5e-6: larger steps break answers that were fine.",
        Method.KTO: "5e-6: larger steps break answers that were fine.",
        Method.CLASSIFICATION: "2e-5; with few rows 5e-5 to 1e-4, or three epochs get nowhere.",
        Method.MASKED_LM: "1e-4: the usual one for going on with an encoder.",
    },
    "num_train_epochs": {
        Method.LORA_SFT: "3 below 1,000 rows, 2 below 10,000, else 1: more is learning by heart.",
        Method.FULL_SFT: "3 below 1,000 rows, 2 below 10,000, else 1: more is learning by heart.",
        Method.DPO: "1: preferences are learned fast and overdone faster.",
        Method.KTO: "1: preferences are learned fast and overdone faster.",
    },
    "max_length": {method: IS_LEFT_OUT if method in PREFERENCES else IS_CUT for method in Method},
}


UNKNOWN_FAILURE = ("The job failed", "Read the log below, change what it names, and try again.")
# Code of the failure: title, and what to do about it.
ADVICE: dict[str, tuple[str, str]] = {
    "out_of_memory": (
        "It ran out of memory",
        "Half the batch needs about half the memory. Twice as many batches to a step keep the effective batch, and so "
        "the result, as it was. Evaluations in smaller batches only take longer.",
    ),
    "disk": (
        "It could not write to the disk",
        "Make room on the disk, then resume: it goes on from its last checkpoint.",
    ),
    "diverged": (
        "The loss stopped being a number",
        "Most often the learning rate is too high: try a tenth of it. Rows of nothing but symbols can do it too.",
    ),
    "base_model": (
        "The base model cannot be trained",
        "Look under Models whether it is there and complete, or choose another base.",
    ),
    "conversation": ("A conversation cannot be trained on", "Correct or reject the row named here in its dataset."),
    "chat_template": (
        "The base's chat template does not fit these conversations",
        "Choose another base, or leave out the turns that it refuses; the pre-flight report names the rows.",
    ),
    "double_bos": (
        "The template puts the beginning token twice",
        "A model trained so would answer worse in chat. Choose another base.",
    ),
    "missing_stop_token": (
        "Trained answers do not end in a stop token",
        "A model trained so would never stop. Choose another base, or one whose chat template ends its turns.",
    ),
    "trained_share": (
        "No token, or every token, would be trained",
        "Look at the coloured samples in the pre-flight report: only the answers should be trained.",
    ),
    "too_long": ("Rows are too long", "Allow longer rows, or shorten them in the dataset."),
    "data": ("The data cannot be trained on", "Look at the dataset, correct what is named here, and freeze it anew."),
    "hyperparameters": ("A hyperparameter cannot be meant", "Change what is named here, and try again."),
    "device": ("The device is not there", "Start it where the GPU is, or let USE_GPU choose."),
    "still_running": (
        "Its earlier process did not end",
        "Wait a minute, then resume. If it stays so, restart the server.",
    ),
    "resume_mismatch": (
        "It cannot go on where it stopped",
        "The data, the base or the hyperparameters changed since the checkpoint. Start it anew.",
    ),
    "broken_checkpoint": ("Its checkpoint is broken", "Start it anew."),
    "preflight": ("The check found errors", "Read the pre-flight report, correct what it names, and try again."),
    "not_there": (
        "Something it needs is no longer there",
        "What is named here was there when the job was made. Put it back and resume, or change the job.",
    ),
    "target": (
        "The result cannot become a version of that model",
        "Nothing that was learned is lost. Choose another name, or change the model, then resume.",
    ),
    "busy": ("Something else was in its way", "Wait a moment, then resume."),
    "crashed": (
        "Its process ended without a word",
        "Often the system ended it for its memory. Resume it, or try again with half the batch.",
    ),
    "too_few_rows": ("There are too few rows", "Add and approve more rows in the dataset, then freeze it anew."),
    "one_label": ("Every row has the same label", "A classifier needs rows of at least two labels."),
    "one_rating": ("Every row has the same rating", "It learns from the difference: it needs good rows and bad ones."),
    "worker_lost": ("Its worker was lost again and again", "Look into the server's log, then resume."),
}


@dataclass(frozen=True)
class Metric:
    """`better` is lower, higher, or empty for a figure that is only there to compare with."""

    label: str
    better: str = ""
    is_share: bool = field(default=False)


METRICS: dict[str, Metric] = {
    "eval_loss": Metric("Held-out loss", "lower"),
    "loss": Metric("Loss", "lower"),
    "perplexity": Metric("Perplexity", "lower"),
    "accuracy": Metric("Accuracy", "higher", is_share=True),
    "macro_f1": Metric("Macro-F1", "higher", is_share=True),
    "majority": Metric("Always the commonest label", is_share=True),
    "margin": Metric("Margin of the better answers", "higher"),
}

# Where a prompt of an evaluation comes from.
SOURCES = {
    "fixed": "asked every version",
    "sample": "a sample prompt",
    "held out": "from the held-out rows",
    "conversation": "from a conversation",
}
