"""Snow and rain that are right, missing, thin, late, frozen and rising."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sana_streaming.eval.cases import Case
from sana_streaming.eval.edits import true_edit
from sana_streaming.eval.weather import weather

from .conftest import CASE


def case_of(name: str, degree: str = "", frames: int = 10) -> Case:
    coarse = torch.rand(1, 3, 5, 5)
    picture = F.interpolate(coarse, size=(128, 128), mode="bicubic").clamp(0, 1) * 0.6
    still = (picture * 255).to(torch.uint8).permute(0, 2, 3, 1)[:, None].expand(1, frames, 128, 128, 3)
    args = (degree,) if degree else ()
    return Case(name, "rendered", degree, still, true_edit(name, still, *args), CASE.region, ("x",), (degree,), (0,))


def of(video: Tensor, case: Case, metric: str) -> float:
    return weather(video, case)[metric].item()


@pytest.fixture(params=["snow", "rain"])
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


def test_the_truth(case: Case) -> None:
    assert of(case.truth, case, "density") == 1
    assert of(case.truth, case, "in_place") == pytest.approx(1)
    assert of(case.truth, case, "motion_error") == 0
    assert of(case.truth, case, "behind") > 68


def test_a_model_that_does_nothing(case: Case) -> None:
    assert abs(of(case.source, case, "density")) < 0.15
    assert abs(of(case.source, case, "in_place")) < 0.1


def test_half_as_many_particles(case: Case) -> None:
    thin = true_edit(case.edit, case.source, "slightly")
    assert 0.3 < of(thin, case, "density") < 0.75
    assert 0.3 < of(thin, case, "in_place") < 0.75


def test_right_but_late(case: Case) -> None:
    late = torch.cat([case.truth[:, :1], case.truth[:, :-1]], dim=1)
    assert of(late, case, "density") == pytest.approx(1, abs=0.1)
    assert of(late, case, "in_place") < 0.85
    assert of(late[:, 1:], _part(case, 1), "motion_error") < 0.05


def test_frozen_and_rising(case: Case) -> None:
    frozen = case.truth[:, :1].expand_as(case.truth)
    assert of(frozen, case, "motion_error") == pytest.approx(1, abs=0.05)
    assert of(case.truth.flip(1), case, "motion_error") == pytest.approx(2, abs=0.1)


def test_degrees_have_their_own_truth() -> None:
    heavy = case_of("snow", "heavily")
    assert of(heavy.truth, heavy, "density") == 1
    assert of(true_edit("snow", heavy.source), heavy, "density") < 0.75


def _part(case: Case, first: int) -> Case:
    """Frames from `first` on. The truth is only compared in its motion, which is the same everywhere."""
    return replace(case, source=case.source[:, first:], truth=case.truth[:, : case.truth.shape[1] - first])
