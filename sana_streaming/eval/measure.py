"""Every metric on every case: of the edited clips and, beside them, of the unedited source and of the truth after the
codec. The first is what doing nothing scores, the second what no model can beat by much."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from torch import Tensor

from sana_streaming.data.edits import EDITS
from sana_streaming.data.pairs import Edit
from sana_streaming.data.prompts import Prompts
from sana_streaming.eval.cases import PARTICLES, Case
from sana_streaming.eval.edits import edit, reconstruct
from sana_streaming.eval.flicker import flicker
from sana_streaming.eval.recognition import Recogniser
from sana_streaming.eval.regions import regions
from sana_streaming.eval.weather import weather
from sana_streaming.metrics import psnr
from sana_streaming.stream.editor import Editor

T = TypeVar("T")

UNEDITED, CODEC = "unedited", "codec"
NEW_OBJECTS = ("replace", "add")


@dataclass(frozen=True)
class Metric:
    """measure: video RGB uint8 [n, F, H, W, 3] -> by name what it scores [n], NaN where that says nothing."""

    measure: Callable[[Tensor, Case], dict[str, Tensor]]
    suits: Callable[[Edit], bool]


@dataclass(frozen=True)
class Score:
    """One metric of one kind of video, clip by clip."""

    edit: str
    material: str
    degree: str
    video: str  # "2 steps", "4 steps", "unedited" or "codec"
    metric: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Sample:
    """One frame of each video of a clip, RGB uint8 [H, W, 3]."""

    edit: str
    material: str
    degree: str
    phrase: str
    pictures: dict[str, np.ndarray]


@dataclass(frozen=True)
class Measured:
    """What is known of one batch of clips."""

    scores: list[Score]
    samples: list[Sample]


def metrics(recogniser: Recogniser, edges: Sequence[int]) -> tuple[Metric, ...]:
    """edges: first frames of the chunks, and the end."""
    return (
        Metric(lambda video, case: {"psnr": psnr(video, case.truth)}, lambda edit: True),
        Metric(regions, lambda edit: edit.kind in ("object", "background")),
        Metric(lambda video, case: {"rank": recogniser.rank(video, case)}, lambda edit: edit.name in NEW_OBJECTS),
        Metric(partial(flicker, edges=edges), lambda edit: True),
        Metric(weather, lambda edit: edit.name in PARTICLES),
    )


def measure(
    editor: Editor,
    prompts: Prompts,
    groups: Iterable[list[Case]],
    steps: Sequence[int],
    chosen: Sequence[Metric],
    samples_of: int = 1,
    on_batch: Callable[[int], None] = lambda clips: None,
) -> list[Measured]:
    """groups: cases that are edited together, emptied when they have been measured; samples_of: clips of each case
    whose pictures are kept."""
    found = []
    for group in groups:
        found.append(measure_group(editor, prompts, group, steps, chosen, samples_of))
        on_batch(sum(map(len, group)))
        group.clear()  # these videos must not be there while the next ones are rendered
    return found


def measure_group(
    editor: Editor,
    prompts: Prompts,
    group: Sequence[Case],
    steps: Sequence[int],
    chosen: Sequence[Metric],
    samples_of: int,
) -> Measured:
    """One kind of video is made, measured and forgotten after the other: a batch of them is large."""
    scores: list[list[Score]] = [[] for _ in group]
    samples = [[sample(case, clip) for clip in range(min(samples_of, len(case)))] for case in group]

    def add(name: str, videos: Iterable[Tensor]) -> None:
        for case, own, shown, video in zip(group, scores, samples, videos, strict=True):
            own += judge(name, video, case, chosen)
            if name not in (UNEDITED, CODEC):
                for clip, kept in enumerate(shown):
                    kept.pictures[name] = picture(video[clip])

    add(UNEDITED, (case.source for case in group))
    add(CODEC, (reconstruct(editor.codec, case.truth) for case in group))
    sources = [case.source for case in group]
    phrases, seeds = flat(case.phrases for case in group), flat(case.seeds for case in group)
    for n in steps:
        add(f"{n} steps", edit(editor, sources, phrases, seeds, prompts, n))
    return Measured(flat(scores), flat(samples))


def judge(name: str, video: Tensor, case: Case, chosen: Sequence[Metric]) -> Iterator[Score]:
    """Clip by clip: videos become floats here, which are large."""
    values: dict[str, list[float]] = {}
    for one, alone in zip(video.split(1), case.split(1), strict=True):
        for how in chosen:
            if how.suits(EDITS[case.edit]):
                for metric, value in how.measure(one, alone).items():
                    values.setdefault(metric, []).append(value.item())
    for metric, row in values.items():
        yield Score(case.edit, case.material, case.degree, name, metric, tuple(row))


def merged(scores: Sequence[Score]) -> list[Score]:
    """One score where several cases had the same edit, material and degree."""
    found: dict[tuple[str, ...], Score] = {}
    for s in scores:
        key = (s.edit, s.material, s.degree, s.video, s.metric)
        found[key] = replace(s, values=(*found[key].values, *s.values)) if key in found else s
    return list(found.values())


def sample(case: Case, clip: int) -> Sample:
    pictures = {"source": picture(case.source[clip]), "truth": picture(case.truth[clip])}
    return Sample(case.edit, case.material, case.degree, case.phrases[clip], pictures)


def picture(video: Tensor) -> np.ndarray:
    """A copy of the frame at two thirds of a clip [F, H, W, 3]: a view would keep the clip alive."""
    return video[2 * len(video) // 3].cpu().numpy().copy()


def flat(lists: Iterable[Iterable[T]]) -> list[T]:
    return [item for items in lists for item in items]
