"""Results as Markdown: first the bars that a model is held to, then every edit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sana_streaming.data.edits import EDITS
from sana_streaming.eval.bars import Bar
from sana_streaming.eval.cases import PARTICLES
from sana_streaming.eval.measure import CODEC, UNEDITED
from sana_streaming.eval.results import BOTH, LOCAL, LOOKS, STRONG, Results, divided

MEANS = {"**mean**": LOOKS, "**mean, strong**": STRONG}


@dataclass(frozen=True)
class Column:
    heading: str
    metric: str
    material: str = "rendered"
    form: str = "{:.1f}"
    by: str = ""  # a metric to divide by

    def value(self, results: Results, names: Sequence[str], video: str, degree: str) -> float:
        value = results.mean(names, self.metric, video, self.material, degree)
        return divided(value, results.mean(names, self.by, video, self.material, degree)) if self.by else value


@dataclass(frozen=True)
class Table:
    title: str
    edits: tuple[str, ...]
    columns: tuple[Column, ...]
    degree: str = ""


def weather_columns(material: str) -> tuple[Column, ...]:
    fine = "{:.2f}"
    return (
        Column("PSNR", "psnr", material),
        Column("between the particles", "behind", material),
        Column("density", "density", material, fine),
        Column("at the true places", "in_place", material, fine),
        Column("error of motion", "motion_error", material, fine),
    )


PSNR = Column("PSNR", "psnr")
FLICKER = tuple(
    Column(heading, "jump_across", material, "{:.2f}", by="jump_within")
    for heading, material in (("rendered", "rendered"), ("real", "clips"))
)
INSIDE, OUTSIDE = Column("in the region", "in_region"), Column("outside, to the source", "out_of_region")
WHOLE = (*LOOKS, "unchanged")
TABLES = (
    Table("Looks: PSNR to the truth, dB", WHOLE, (Column("rendered", "psnr"), Column("real", "psnr", "clips"))),
    Table("Looks done slightly: PSNR, dB", (*WHOLE, *PARTICLES), (PSNR,), "slightly"),
    Table("Looks done heavily: PSNR, dB", (*WHOLE, *PARTICLES), (PSNR,), "heavily"),
    Table("Objects and backgrounds: PSNR, dB", LOCAL, (INSIDE, OUTSIDE, PSNR)),
    Table("Two edits in one instruction: PSNR, dB", BOTH, (PSNR,)),
    Table("Snow and rain, rendered clips", PARTICLES, weather_columns("rendered")),
    Table("Snow and rain, real clips", PARTICLES, weather_columns("clips")),
    Table("Flicker at chunk boundaries", (*WHOLE, *PARTICLES, *LOCAL, *BOTH), FLICKER),
)


def bar_table(bars: Sequence[Bar], results: Results) -> str:
    lines = [["bar", "goal", *results.edited, "met", UNEDITED, "truth through the codec"]]
    for bar in bars:
        met = "" if bar.met is None else "yes" if bar.met else "no"
        edited = [bar.cells.get(video, "") for video in results.edited]
        lines.append([bar.label, bar.goal, *edited, met, bar.cells.get(UNEDITED, ""), bar.cells.get(CODEC, "")])
    return markdown(lines)


def edit_tables(results: Results) -> str:
    texts = ((table.title, edit_table(table, results)) for table in TABLES)
    return "\n".join(f"**{title}**\n\n{text}" for title, text in texts if text)


def edit_table(table: Table, results: Results) -> str:
    """A row for each edit, and the means over the looks; "" if nothing was measured."""
    cells = [(column, video) for column in table.columns for video in results.videos]
    lines = [["edit", *(f"{column.heading}, {video}" for column, video in cells)]]
    rows: dict[str, Sequence[str]] = {f"{n} (strong)" if EDITS[n].strong else n: [n] for n in table.edits}
    for label, names in (rows | (MEANS if set(LOOKS) <= set(table.edits) else {})).items():
        values = [column.value(results, names, video, table.degree) for column, video in cells]
        if not all(map(math.isnan, values)):
            texts = ("" if math.isnan(v) else c.form.format(v) for v, (c, _) in zip(values, cells, strict=True))
            lines.append([label, *texts])
    return markdown(lines) if len(lines) > 1 else ""


def markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *rows = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(lines[0]), *rows]) + "\n"
