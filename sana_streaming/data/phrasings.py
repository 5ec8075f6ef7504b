"""How people ask for an edit: many training phrasings from a small grammar, and natural ones held out for judging."""

from dataclasses import dataclass
from itertools import chain, zip_longest

TRAINING_PHRASINGS = 36
SCENES = (
    "the video",
    "the scene",
    "it",
    "the picture",
    "this",
    "the footage",
    "everything",
    "the image",
    "my video",
    "the clip",
)
INTO = (
    "turn {scene} into {look}",
    "make {scene} look like {look}",
    "convert {scene} to {look}",
    "transform {scene} into {look}",
    "render {scene} as {look}",
    "I want {scene} to look like {look}",
    "change {scene} into {look}",
    "{look}",
    "show {scene} as {look}",
    "{scene} should look like {look}",
    "can you make {scene} look like {look}?",
    "restyle {scene} as {look}",
)
BECOME = (
    "make {scene} {look}",
    "{look}",
    "I want {scene} to be {look}",
    "{scene} should be {look}",
    "{scene}, but {look}",
    "please make {scene} {look}",
    "can you make {scene} {look}?",
    "let {scene} become {look}",
)
GIVE = (
    "give {scene} {look}",
    "apply {look}",
    "add {look} to {scene}",
    "use {look}",
    "put {look} on {scene}",
    "apply {look} to {scene}",
    "I would like {look}",
    "{scene} with {look}",
)
PLACE = (
    "make {scene} look like it was filmed {look}",
    "{look}",
    "{scene}, but {look}",
    "set {scene} {look}",
    "as if {scene} was shot {look}",
    "change {scene} so that it happens {look}",
)


@dataclass(frozen=True)
class Wording:
    """The words for one edit. The example comes first in a user interface; the others fill the templates above."""

    example: str
    into: tuple[str, ...] = ()  # "a pencil sketch"
    become: tuple[str, ...] = ()  # "foggy"
    give: tuple[str, ...] = ()  # "a sepia tone"
    place: tuple[str, ...] = ()  # "at night"
    short: tuple[str, ...] = ()  # whole phrases
    held_out: tuple[str, ...] = ()  # whole phrases that are never trained on


def training_phrasings(wording: Wording) -> tuple[str, ...]:
    """The example, the short phrases, and as many of the grammar's as make TRAINING_PHRASINGS; always the same ones."""
    families = (
        _fill(INTO, wording.into),
        _fill(BECOME, wording.become),
        _fill(GIVE, wording.give),
        _fill(PLACE, wording.place),
    )
    generated = [phrase for row in zip_longest(*families) for phrase in row if phrase]
    fixed = (wording.example, *wording.short)
    missing = max(0, TRAINING_PHRASINGS - len(fixed))
    taken = {plain(phrase) for phrase in (*fixed, *wording.held_out)}
    out = list(fixed)
    for i, phrase in enumerate(generated):
        if plain(phrase) not in taken and missing > 0:
            taken.add(plain(phrase))
            out.append(_vary(phrase, i))
            missing -= 1
    return tuple(out)


def plain(phrase: str) -> str:
    """A phrase without capitals and punctuation: two that are equal then are the same to the text encoder."""
    return " ".join("".join(c if c.isalnum() else " " for c in phrase.lower()).split())


def _fill(templates: tuple[str, ...], looks: tuple[str, ...]) -> list[str]:
    """Every template with every look; scenes, templates and looks all change from one phrase to the next."""
    if not looks:
        return []
    rounds = (
        (templates[i], looks[(i + turn) % len(looks)], SCENES[(i + 3 * turn) % len(SCENES)])
        for turn in range(len(looks))
        for i in range(len(templates))
    )
    return [template.format(scene=scene, look=look) for template, look, scene in rounds]


def _vary(phrase: str, i: int) -> str:
    """Capitals, full stops and courtesy, as people have them or not."""
    if i % 3 == 0:
        phrase = phrase[0].upper() + phrase[1:]
    if phrase.endswith("?"):
        return phrase
    return phrase + (", please" if i % 11 == 7 else "." if i % 4 == 1 else "!" if i % 13 == 5 else "")


def all_phrases(wording: Wording) -> tuple[str, ...]:
    return tuple(chain(training_phrasings(wording), wording.held_out))
