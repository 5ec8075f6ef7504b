"""Steps between frames whose size is known."""

from dataclasses import replace

import torch

from sana_streaming.eval.flicker import flicker, motion_errors

from .conftest import CASE

EDGES = [0, 4, 8]


def moving(levels: list[int]) -> torch.Tensor:
    """Even frames of these levels."""
    return torch.tensor(levels, dtype=torch.uint8)[None, :, None, None, None].expand(CASE.truth.shape)


TRUTH = replace(CASE, truth=moving([0, 5, 10, 15, 20, 25, 30, 35]))


def flicker_of(steps: list[int]) -> tuple[float, float]:
    """Across and within chunks, of a video whose frames move away from the truth by these steps."""
    offset = torch.tensor([0, *steps]).cumsum(0)[None, :, None, None, None]
    video = (TRUTH.truth + 100 + offset).to(torch.uint8)
    found = flicker(video, TRUTH, EDGES)
    return found["jump_across"].item(), found["jump_within"].item()


def test_equal_steps_everywhere() -> None:
    assert flicker_of([2, -2, 2, -2, 2, -2, 2]) == (2, 2)


def test_larger_steps_between_chunks() -> None:
    assert flicker_of([2, -2, 2, 6, -2, 2, -2]) == (6, 2)


def test_a_perfect_model_and_a_constant_error_of_colour_do_not_flicker() -> None:
    assert flicker_of([0] * 7) == (0, 0)


def test_a_model_that_is_late_by_a_frame_errs_where_motion_changes() -> None:
    uneven = replace(CASE, truth=moving([0, 5, 5, 10, 10, 30, 30, 35]))
    late = torch.cat([uneven.truth[:, :1], uneven.truth[:, :-1]], dim=1)
    assert motion_errors(late, uneven)[0].tolist() == [5, 5, 5, 5, 20, 20, 5]
    assert {name: value.item() for name, value in flicker(late, uneven, EDGES).items()} == {
        "jump_across": 5,
        "jump_within": 5,
    }


def test_without_a_boundary_there_is_no_number() -> None:
    assert flicker(TRUTH.truth, TRUTH, [0, 8])["jump_across"].isnan().all()
    assert flicker(TRUTH.truth, TRUTH, list(range(9)))["jump_within"].isnan().all()
