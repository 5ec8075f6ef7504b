"""What is kept of videos that were measured: numbers and a few pictures."""

import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sana_streaming.data.prompts import Prompts
from sana_streaming.eval import measure as module
from sana_streaming.eval.cases import Case
from sana_streaming.eval.measure import Metric, judge, measure, merged
from sana_streaming.metrics import psnr

from .conftest import CASE, editor

PSNR = Metric(lambda video, case: {"psnr": psnr(video, case.truth)}, lambda edit: True)


def case_of(clips: int) -> Case:
    source = torch.randint(0, 256, (clips, 8, 16, 16, 3), dtype=torch.uint8)
    region = torch.ones(clips, 8, 16, 16)
    own = {"phrases": ("a",) * clips, "subjects": ("",) * clips, "seeds": tuple(range(clips))}
    return replace(CASE, source=source, truth=255 - source, region=region, **own)


def test_no_video_outlives_its_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    model, edited, alive = editor(), [], []

    def edit(_: Any, sources: Sequence[Tensor], *more: Any) -> list[Tensor]:
        alive.append(sum(ref() is not None for ref in edited))
        videos = [source.clone() for source in sources]
        edited.extend(map(weakref.ref, videos))
        return videos

    monkeypatch.setattr(module, "edit", edit)
    groups = [[case_of(2), case_of(1)], [case_of(1)]]
    found = measure(model, Prompts(model.encode_text), groups, [1, 2, 4], [PSNR])
    assert alive == [0] * 6
    assert groups == [[], []]
    pictures = [picture for batch in found for s in batch.samples for picture in s.pictures.values()]
    assert len(pictures) == 3 * 5
    assert all(picture.flags.owndata and picture.shape == (16, 16, 3) for picture in pictures)


def test_clips_are_judged_one_by_one_and_told_together() -> None:
    first, second = case_of(3), case_of(2)
    scores = [*judge("codec", first.source, first, [PSNR]), *judge("codec", second.source, second, [PSNR])]
    expected = [*psnr(first.source, first.truth).tolist(), *psnr(second.source, second.truth).tolist()]
    assert [score.values for score in merged(scores)] == [pytest.approx(expected)]


def test_a_metric_is_asked_of_the_edits_that_it_suits() -> None:
    never = replace(PSNR, suits=lambda edit: edit.name == "snow")
    assert list(judge("codec", CASE.source, CASE, [never])) == []
