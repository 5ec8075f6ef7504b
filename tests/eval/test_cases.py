"""Held-out cases: the same for a seed, in held-out phrasings, in batches of one size."""

from dataclasses import replace

import pytest
import torch

from sana_streaming.data.bank import Bank
from sana_streaming.data.edits import EDITS
from sana_streaming.eval.cases import AT_ONCE, Amount, batches, cases, real_clips
from sana_streaming.eval.edits import true_edit

from .conftest import CASE

AMOUNT = Amount(frames=4, rendered=2, real=3, scenes=3)


def test_looks_share_their_sources_and_come_in_all_degrees(bank: Bank) -> None:
    found = [c for c in cases(bank, 48, AMOUNT, ["negative", "sepia"]) if c.material == "rendered"]
    assert [(c.edit, c.degree) for c in found] == [
        ("negative", ""),
        ("sepia", ""),
        ("sepia", "slightly"),
        ("sepia", "heavily"),
    ]
    for case in found:
        assert torch.equal(case.source, found[0].source)
    assert torch.equal(found[0].truth, 255 - found[0].source)
    assert torch.equal(found[2].truth, true_edit("sepia", found[2].source, "slightly"))
    trained = {phrase for edit in EDITS.values() for phrase in edit.phrasings}
    assert not trained & {phrase for case in found for phrase in case.phrases}


@pytest.mark.parametrize("name", ["remove", "replace", "add", "background"])
def test_scenes_change_in_their_region_only(bank: Bank, name: str) -> None:
    for case in cases(bank, 48, AMOUNT, [name]):
        change = (case.source.int() - case.truth.int()).abs().amax(dim=-1)
        assert change[case.region == 0].amax() <= 1
        assert len(case.phrases) == len(case.subjects) == len(case)


def test_a_seed_gives_the_same_cases(bank: Bank) -> None:
    first, second = (list(cases(bank, 48, AMOUNT, ["recolour", "sepia"], seed=7)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.source, b.source)
        assert torch.equal(a.truth, b.truth)
        assert a.phrases == b.phrases
        assert a.seeds == b.seeds


def test_every_clip_of_an_edit_has_noise_of_its_own(bank: Bank) -> None:
    many = replace(AMOUNT, scenes=AT_ONCE["object"] + 1)
    assert [seed for case in cases(bank, 48, many, ["remove"]) for seed in case.seeds] == list(range(many.scenes))


def test_real_clips_of_one_shape_stand_together(bank: Bank) -> None:
    found = real_clips(bank, 48, 20, 5)
    assert [tuple(clips.shape) for clips in found] == [(2, 20, 48, 64, 3), (1, 20, 64, 48, 3)]
    assert sum(map(len, real_clips(bank, 48, 20, 1))) == 1
    assert real_clips(bank, 48, 21, 5) == []


def test_batches_hold_one_size_and_no_more_than_fits() -> None:
    many = replace(
        CASE, source=CASE.source.expand(5, -1, -1, -1, -1), truth=CASE.truth.expand(5, -1, -1, -1, -1),
        region=CASE.region.expand(5, -1, -1, -1), phrases=("x",) * 5, subjects=tuple("abcde"),
        seeds=tuple(range(5)),
    )  # fmt: skip
    wide = replace(CASE, source=torch.zeros(1, 8, 32, 48, 3), truth=torch.zeros(1, 8, 32, 48, 3))
    found = list(batches(iter([CASE, many, CASE, wide, CASE]), pixels=3 * 32 * 32))
    assert [[len(case) for case in group] for group in found] == [[1], [3], [2, 1], [1], [1]]
    assert [s for group in found[1:3] for case in group for s in case.subjects] == [*"abcde", ""]
    assert [s for group in found[1:3] for case in group for s in case.seeds] == [*range(5), 0]


def test_nothing_asked_for_is_nothing(bank: Bank) -> None:
    assert list(cases(bank, 48, Amount(4, rendered=0, real=0, scenes=0), ["sepia", "remove"])) == []
