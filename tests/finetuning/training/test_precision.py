"""The format is chosen by the work it takes, not by how long the work had to wait."""

from __future__ import annotations

import time

import pytest
import torch

from finetuning.training.precision import Precision, choose_precision


def work_until(seconds: float) -> None:
    """Uses that much of a core."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.parametrize(("dear", "chosen"), [(False, "float32"), (True, "bfloat16")])
def test_format_that_costs_less_is_chosen_however_long_it_waits(dear, chosen):
    """`dear`: the autocast format waits for others, and the other one computes; or the other way round."""

    def work() -> None:
        if torch.is_autocast_enabled("cpu") is dear:
            time.sleep(0.05)  # another process has the core
        else:
            work_until(0.02)

    assert choose_precision("auto", device="cpu", work=work) == Precision(chosen, "cpu")


def test_format_that_was_asked_for_is_not_measured():
    def work() -> None:
        raise AssertionError

    assert choose_precision("float32", device="cpu", work=work) == Precision("float32", "cpu")
