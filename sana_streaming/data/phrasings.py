"""How people ask for an edit: many training phrasings from a small grammar, and natural ones held out for judging."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import zip_longest

UNCHANGED = "keep the video unchanged"
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
SLIGHTLY = (
    ("make {scene} slightly {adjective}", "make {scene} a little {adjective}", "slightly {adjective}",
     "I want {scene} to be a bit {adjective}", "make {scene} a tiny bit {adjective}", "only a little {adjective}"),
    ("add a touch of {noun}", "a little {noun}", "give {scene} a touch of {noun}", "add a bit of {noun} to {scene}",
     "subtle {noun}", "a touch of {noun}, please", "add some subtle {noun}", "just a bit of {noun}"),
)  # fmt: skip
SLIGHTLY_HELD_OUT = (
    ("make {scene} somewhat {adjective}", "ever so slightly {adjective}"),
    ("only a hint of {noun}", "add just a little {noun}"),
)
HEAVILY = (
    ("make {scene} very {adjective}", "make {scene} heavily {adjective}", "very {adjective}",
     "I want {scene} to be extremely {adjective}", "make {scene} really {adjective}", "strongly {adjective}"),
    ("add a lot of {noun}", "a lot of {noun}", "give {scene} lots of {noun}", "add strong {noun} to {scene}",
     "strong {noun}", "lots of {noun}, please", "add very strong {noun}", "as much {noun} as possible"),
)  # fmt: skip
HEAVILY_HELD_OUT = (
    ("make {scene} intensely {adjective}", "very, very {adjective}"),
    ("plenty of {noun}", "I want a whole lot of {noun}"),
)
REVERSE = (
    "turn it back into a normal video",
    "undo the edit",
    "show the real scene again",
    "take the effect away again",
    "bring the real picture back",
    "make it look natural again",
)
REVERSE_NOUN = (
    "remove the {noun}",
    "take the {noun} away",
    "undo the {noun}",
    "get rid of the {noun}",
    "clear the {noun} off {scene}",
    "{scene} without the {noun}",
)
ORDERS = {  # verbs that begin a request which can be joined to another
    "add", "age", "apply", "blur", "boost", "bring", "change", "clear", "color", "colour", "convert", "cover",
    "cut", "defocus", "delete", "draw", "dye", "emboss", "erase", "exchange", "fill", "get", "give", "hide",
    "include", "insert", "invert", "let", "make", "paint", "place", "posterise", "posterize", "put",
    "recolor", "recolour", "remove", "render", "repaint", "replace", "restyle", "set", "show", "sketch",
    "soften", "substitute", "swap", "switch", "take", "trace", "transform", "turn", "use",
}  # fmt: skip
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
    adjectives: tuple[str, ...] = ()  # "foggy", of edits that come in degrees
    nouns: tuple[str, ...] = ()  # "fog", what there is little or much of
    slightly: tuple[str, ...] = ()  # whole phrases: "light fog"
    heavily: tuple[str, ...] = ()  # whole phrases: "thick fog"
    effect: str = ""  # what the reverse instruction takes away: "pencil drawing", "fog"


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


@cache
def paraphrases() -> dict[str, tuple[str, ...]]:
    """Free ways to ask for edits, for training: edit -> phrases, with gaps to fill in those of objects."""
    text = files("sana_streaming.data").joinpath("paraphrases.txt").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("["):
            name = line.strip("[]")
        elif line and not line.startswith("#"):
            found.setdefault(name, []).append(line)
    return {name: tuple(phrases) for name, phrases in found.items()}


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


def degree_phrasings(wording: Wording, degree: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """For an edit done "slightly" or "heavily": training phrasings and held-out ones."""
    slightly = degree == "slightly"
    training = _fill_pair(SLIGHTLY if slightly else HEAVILY, wording)
    held_out = tuple(_fill_pair(SLIGHTLY_HELD_OUT if slightly else HEAVILY_HELD_OUT, wording))
    kept = [_vary(phrase, i) for i, phrase in enumerate(training)]
    return (*(wording.slightly if slightly else wording.heavily), *kept), held_out


def reverse_phrasings(wording: Wording) -> tuple[str, ...]:
    """How to ask for the source, given the edited video; none where nothing was edited."""
    if not wording.effect:
        return ()
    named = [
        template.format(noun=wording.effect, scene=SCENES[(3 * i) % len(SCENES)])
        for i, template in enumerate(REVERSE_NOUN)
    ]
    return (*named, *named, *REVERSE)


def order(phrase: str) -> str | None:
    """A phrase as part of a longer one, if it is an order: "make it night" for "Make it night.", None for "night"."""
    bare = phrase.removesuffix(", please").removesuffix(" please").removeprefix("please ").rstrip(".!?")
    bare = bare[0].lower() + bare[1:]
    return bare if bare.split()[0] in ORDERS else None


def _fill_pair(templates: tuple[tuple[str, ...], tuple[str, ...]], wording: Wording) -> list[str]:
    """Templates with adjectives and templates with nouns, each once with every word."""
    filled = [
        template.format(scene=SCENES[(i + 3 * turn) % len(SCENES)], adjective=word, noun=word)
        for family, words in zip(templates, (wording.adjectives, wording.nouns), strict=True)
        for turn, word in enumerate(words)
        for i, template in enumerate(family)
    ]
    return list(dict.fromkeys(filled))
