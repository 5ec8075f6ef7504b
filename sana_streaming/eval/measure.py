"""Every metric on every case: of the edited clips and, beside them, of the unedited source and of the truth after the
codec. The first is what doing nothing scores, the second what no model can beat by much."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from sana_streaming.data.edits import EDITS
from sana_streaming.data.pairs import Edit
from sana_streaming.data.prompts import Prompts
from sana_streaming.eval.cases import PARTICLES, Case, batches
from sana_streaming.eval.edits import edit, reconstruct
from sana_streaming.eval.flicker import jump_across, jump_within
from sana_streaming.eval.recognition import Recogniser
from sana_streaming.eval.regions import in_region, out_of_region
from sana_streaming.eval.weather import behind, density, in_place, motion_error
from sana_streaming.metrics import psnr
from sana_streaming.stream.editor import Editor

UNEDITED, CODEC = "unedited", "codec"
NEW_OBJECTS = ("replace", "add")


@dataclass(frozen=True)
class Metric:
    measure: Callable[[Tensor, Case], Tensor]  # video RGB uint8 [n, F, H, W, 3] -> [n], NaN where it says nothing
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
    """One frame of each video of a clip, RGB uint8 [H, W, 3] on the CPU."""

    edit: str
    material: str
    degree: str
    phrase: str
    pictures: dict[str, Tensor]


def metrics(recogniser: Recogniser, edges: Sequence[int]) -> dict[str, Metric]:
    """edges: first frames of the chunks, and the end."""
    return {
        "psnr": Metric(lambda video, case: psnr(video, case.truth), lambda edit: True),
        "in_region": Metric(in_region, lambda edit: edit.kind in ("object", "background")),
        "out_of_region": Metric(out_of_region, lambda edit: edit.kind in ("object", "background")),
        "rank": Metric(recogniser.rank, lambda edit: edit.name in NEW_OBJECTS),
        "jump_across": Metric(partial(jump_across, edges=edges), lambda edit: True),
        "jump_within": Metric(partial(jump_within, edges=edges), lambda edit: True),
        "density": Metric(density, lambda edit: edit.name in PARTICLES),
        "in_place": Metric(in_place, lambda edit: edit.name in PARTICLES),
        "motion_error": Metric(motion_error, lambda edit: edit.name in PARTICLES),
        "behind": Metric(behind, lambda edit: edit.name in PARTICLES),
    }


def measure(
    editor: Editor,
    prompts: Prompts,
    found: Iterator[Case],
    steps: Sequence[int],
    chosen: dict[str, Metric],
    pixels: int,
    samples_of: int = 1,
    on_batch: Callable[[int], None] = lambda clips: None,
) -> tuple[list[Score], list[Sample]]:
    """pixels: how many of one frame of each clip are edited at once; samples_of: clips of each case that are kept."""
    scores, samples = [], []
    for group in batches(found, pixels):
        source, truth = (torch.cat(videos) for videos in zip(*((c.source, c.truth) for c in group), strict=True))
        phrases = [phrase for case in group for phrase in case.phrases]
        videos = {UNEDITED: source, CODEC: reconstruct(editor.codec, truth)}
        videos |= {f"{n} steps": edit(editor, source, phrases, prompts, n) for n in steps}
        start = 0
        for case in group:
            own = {name: video[start : start + len(case)] for name, video in videos.items()}
            scores += [score for name, video in own.items() for score in judge(name, video, case, chosen)]
            samples += [sample(own, case, i) for i in range(min(samples_of, len(case)))]
            start += len(case)
        on_batch(start)
    return merged(scores), samples


def judge(name: str, video: Tensor, case: Case, chosen: dict[str, Metric]) -> Iterator[Score]:
    for metric, how in chosen.items():
        if how.suits(EDITS[case.edit]):
            values = tuple(how.measure(video, case).tolist())
            yield Score(case.edit, case.material, case.degree, name, metric, values)


def merged(scores: Sequence[Score]) -> list[Score]:
    """One score where several cases had the same edit, material and degree."""
    found: dict[tuple[str, ...], Score] = {}
    for s in scores:
        key = (s.edit, s.material, s.degree, s.video, s.metric)
        found[key] = replace(s, values=(*found[key].values, *s.values)) if key in found else s
    return list(found.values())


def sample(videos: dict[str, Tensor], case: Case, clip: int) -> Sample:
    """A frame at two thirds of the clip."""
    moment = 2 * case.source.shape[1] // 3
    edited = {name: video for name, video in videos.items() if name not in (UNEDITED, CODEC)}
    shown = {"source": case.source, "truth": case.truth, **edited}
    pictures = {name: video[clip, moment].cpu() for name, video in shown.items()}
    return Sample(case.edit, case.material, case.degree, case.phrases[clip], pictures)
