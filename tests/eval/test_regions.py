"""Errors inside, outside and at the border of a region."""

import math
from dataclasses import replace

import pytest
import torch

from sana_streaming.eval.regions import in_region, out_of_region

from .conftest import CASE

REGION = torch.zeros(1, 8, 32, 32)
REGION[..., :12] = 1
TRUTH = CASE.source.clone()
TRUTH[..., :12, :] = 200
EDITED = replace(CASE, edit="remove", truth=TRUTH, region=REGION)


def test_a_perfect_model() -> None:
    assert in_region(TRUTH, EDITED).item() > 68
    assert out_of_region(TRUTH, EDITED).item() > 68


def test_a_model_that_does_nothing_keeps_the_rest_only() -> None:
    assert in_region(EDITED.source, EDITED).item() == pytest.approx(20 * math.log10(255 / 200), abs=1e-3)
    assert out_of_region(EDITED.source, EDITED).item() > 68


def test_the_border_belongs_to_neither() -> None:
    spilt = TRUTH.clone()
    spilt[..., 12:20, :] = 90  # eight pixels
    assert in_region(spilt, EDITED).item() > 68
    assert out_of_region(spilt, EDITED).item() > 68
    spilt[..., 20:, :] = 10
    assert out_of_region(spilt, EDITED).item() == pytest.approx(28.1308, abs=1e-3)


def test_no_region_is_no_number() -> None:
    assert in_region(TRUTH, replace(EDITED, region=torch.zeros_like(REGION))).isnan().all()
    assert out_of_region(TRUTH, replace(EDITED, region=torch.ones_like(REGION))).isnan().all()
