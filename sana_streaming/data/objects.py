"""Edits of one named object: remove it, recolour it, replace it, add it.

Source and target show the same scene with and without the object, on one path. What is new is never left to chance: a
name of the vocabulary has one cut-out of one size, a colour changes a cut-out in one way, an added object stands still
where the instruction says, and one that replaces another is upright, its middle where the mean of all that the other
covers is, however that one leans.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from sana_streaming.data.bank import Bank
from sana_streaming.data.filters import Colour, luma
from sana_streaming.data.layers import Layer, Path, cover, draw, in_sight, paint, points_on, standing, upright, wander
from sana_streaming.data.motion import chance, integers, uniform
from sana_streaming.data.pairs import Edit, Pairs
from sana_streaming.data.photographed import before_plates, graded, named_photos, photographed, seen_middles
from sana_streaming.data.phrasings import UNCHANGED, paraphrases
from sana_streaming.data.scenes import BACKDROPS, backdrops, varied
from sana_streaming.data.vocabulary import OBJECTS as VOCABULARY
from sana_streaming.data.vocabulary import PLACES as BACKGROUNDS
from sana_streaming.data.vocabulary import article

OBJECT_SIZES = (0.24, 0.55)  # of the short side
TRAINED_SIZES = (0.24, 0.75)  # of what is removed or recoloured in training, for what is held before a camera is large
BEHIND, IN_FRONT = 0.35, 0.25  # how often there is another object
CROWDED = 1.8  # so much more often in training, where words alone tell which one is meant
IN_SIGHT = 0.85  # how often the object is in the first frame for certain
ABSENT = 0.1  # how often an object is to be removed that is not there
UNFOUND = 0.3  # how often in training one is to be recoloured that is not there: then nothing may be tinted
FOREIGN = 0.5  # how often in training what is not there has a word of another edit: "paint the tulips red" is no place
OWN = 0.15  # how often in training it is the subject of a photograph that is changed
HEAD_ONLY, ANYTHING = 0.2, 0.1  # how often a name is cut to its noun in training, or nothing is named
NEW_SIZE = 0.44  # of what is added or put in the place of something, of the short side

ANY = ("object", "thing")  # what may be said where only one object is there

FOREIGN_WORDS = (
    *(name for name in BACKGROUNDS if name != "black"),
    "sketch", "drawing", "painting", "cartoon", "comic", "poster", "film", "neon sign", "blueprint", "plan",
    "blackboard", "x-ray", "camera", "night", "winter", "autumn leaves", "fog", "snow", "rain", "snowflakes",
    "old photograph", "postcard", "portrait", "canvas", "mosaic", "ink", "chalk", "coal", "medal", "hologram", "laser",
    "neon light", "arcade machine", "cinema", "actor", "gangster", "spy", "architect", "house plan", "skeleton",
    "doctor", "diver", "submarine", "cassette", "gramophone", "goggles", "statue", "smoke", "storm", "flame", "leaf",
)  # fmt: skip

COLOURS: dict[str, Colour] = {
    "red": (0.80, 0.08, 0.08),
    "orange": (0.95, 0.48, 0.05),
    "yellow": (0.96, 0.84, 0.12),
    "green": (0.14, 0.58, 0.18),
    "blue": (0.10, 0.28, 0.85),
    "purple": (0.48, 0.16, 0.70),
    "pink": (0.96, 0.48, 0.70),
    "brown": (0.44, 0.26, 0.13),
    "white": (0.92, 0.92, 0.92),
    "black": (0.09, 0.09, 0.10),
}
ALIKE = {"olive": "green", "cyan": "blue"}  # main colours that have no name of their own here

PLACES = {  # words -> where the middle of a new object is, as shares of width and height
    "": (0.5, 0.74),
    "on the left": (0.23, 0.5),
    "on the left side": (0.23, 0.5),
    "on the right": (0.77, 0.5),
    "on the right side": (0.77, 0.5),
    "in the middle": (0.5, 0.5),
    "in the center": (0.5, 0.5),
    "at the top": (0.5, 0.24),
    "at the bottom": (0.5, 0.74),
    "at the top left": (0.23, 0.24),
    "in the top left corner": (0.23, 0.24),
    "at the top right": (0.77, 0.24),
    "in the top right corner": (0.77, 0.24),
    "at the bottom left": (0.23, 0.74),
    "in the bottom left corner": (0.23, 0.74),
    "at the bottom right": (0.77, 0.74),
    "in the bottom right corner": (0.77, 0.74),
}
NO_PLACE = 0.2  # how often the place is left open

REMOVE = (
    "remove the {old}",
    "delete the {old}",
    "erase the {old}",
    "take away the {old}",
    "get rid of the {old}",
    "make the {old} disappear",
    "remove the {old} from the video",
    "the video without the {old}",
    "take the {old} out of the picture",
    "please remove the {old}",
    "there should be no {old}",
    "hide the {old}",
    "cut the {old} out",
    "remove {old}",
    "delete {old}",
    "I don't want to see the {old}",
    *paraphrases()["remove"],
)
REMOVE_HELD_OUT = (
    "can you remove the {old}?",
    "let the {old} vanish",
    "clear away the {old}",
    "I want the {old} gone",
)
RECOLOUR = (
    "make the {old} {colour}",
    "turn the {old} {colour}",
    "paint the {old} {colour}",
    "dye the {old} {colour}",
    "color the {old} {colour}",
    "colour the {old} {colour}",
    "change the color of the {old} to {colour}",
    "change the colour of the {old} to {colour}",
    "change the {old} to {colour}",
    "the {old} should be {colour}",
    "I want the {old} to be {colour}",
    "give the {old} the colour {colour}",
    "please make the {old} {colour}",
    "recolor the {old} to {colour}",
    *paraphrases()["recolour"],
)
RECOLOUR_HELD_OUT = (
    "can you make the {old} {colour}?",
    "let the {old} be {colour}",
    "I would like the {old} in {colour}",
    "repaint the {old} {colour}",
)
REPLACE = (
    "replace the {old} with {new}",
    "replace the {old} by {new}",
    "please replace the {old} with {new}",
    "replace {old} with {new}",
    "let {new} replace the {old}",
    "I want {new} instead of the {old}",
    "I want {new} in place of the {old}",
    "show {new} where there is the {old}",
    "put {new} where the {old} was",
    "change the {old} into {new}",
    "change the {old} to {new}",
    "turn the {old} into {new}",
    "swap the {old} for {new}",
    "make the {old} become {new}",
    "put {new} in place of the {old}",
    "exchange the {old} for {new}",
    "transform the {old} into {new}",
    "{new} instead of the {old}",
    "instead of the {old}, show {new}",
    "the {old} should be {new}",
    "substitute {new} for the {old}",
    *paraphrases()["replace"],
)
REPLACE_HELD_OUT = (
    "can you replace the {old} with {new}?",
    "I want {new} where the {old} is",
    "switch the {old} to {new}",
    "have {new} take the place of the {old}",
)
ADD = (
    "add {new} {place}",
    "put {new} {place}",
    "place {new} {place}",
    "insert {new} {place}",
    "draw {new} {place}",
    "there should be {new} {place}",
    "I want {new} {place}",
    "show {new} {place}",
    "add {new} to the video {place}",
    "let {new} appear {place}",
    "please add {new} {place}",
    *paraphrases()["add"],
)
ADD_HELD_OUT = (
    "can you add {new} {place}?",
    "I would like to see {new} {place}",
    "include {new} {place}",
    "bring in {new} {place}",
)


def remove(bank: Bank, clips: int, frames: int, height: int, width: int, rng: Generator, held_out: bool) -> Pairs:
    index, old = named_sprites(bank, clips, rng)
    own, photos = named_photos(bank, bank.plated_photos, 0.0 if held_out else OWN, old, rng)
    said = old if held_out else spoken(old, rng)
    base, front = _scene(bank, list(zip(old, said, strict=True)), frames, height, width, rng, not held_out)
    present = (~chance(rng, ABSENT, clips)).index_fill(0, own, False).nonzero()[:, 0]
    path = _object_paths(len(present), frames, height, width, rng, OBJECT_SIZES if held_out else TRAINED_SIZES)
    pictures, _ = _sprites(bank, index[present], rng, not held_out)
    layers = _drawn(pictures, path, height, width, present)
    if len(own):
        layers += [before_plates(bank, base, own, photos, rng)]
    if not held_out:
        said = _foreign(said, torch.cat([present, own]), rng)
    phrases = [fill(REMOVE_HELD_OUT if held_out else REMOVE, rng, old=name) for name in said]
    shown = {*present.tolist(), *own.tolist()}
    reverses = [f"add {article(name)}" if i in shown else UNCHANGED for i, name in enumerate(old)]
    return _pairs(base, layers, [], front, phrases, reverses, [""] * clips)


def recolour(bank: Bank, clips: int, frames: int, height: int, width: int, rng: Generator, held_out: bool) -> Pairs:
    index, old = named_sprites(bank, clips, rng)
    own, photos = named_photos(bank, range(len(bank.photo_names)), 0.0 if held_out else OWN, old, rng)
    said = old if held_out else spoken(old, rng)
    base, front = _scene(bank, list(zip(old, said, strict=True)), frames, height, width, rng, not held_out)
    before = [bank.sprite_colours[i] for i in index.tolist()]
    for i in own.tolist():
        before[i] = ""
    after = [_other_colour(colour, rng) for colour in before]
    absent = 0.0 if held_out else UNFOUND
    present = (~chance(rng, absent, clips)).index_fill(0, own, False).nonzero()[:, 0]
    path = _object_paths(len(present), frames, height, width, rng, OBJECT_SIZES if held_out else TRAINED_SIZES)
    pictures, _ = _sprites(bank, index[present], rng, not held_out)
    old_layers = _drawn(pictures, path, height, width, present)
    colours = [after[i] for i in present.tolist()]
    new_layers = _drawn(recoloured(pictures, colours), path, height, width, present) if colours else []
    if len(own):
        pictures, masked = graded(bank, photos, rng)
        before_it = torch.cat([pictures[:, 0], masked.masks], 1)
        after_it = recoloured(before_it, [after[i] for i in own.tolist()])[:, :3]
        new_layers += [photographed(base, own, torch.stack([after_it, pictures[:, 0]], 1), masked, rng)]
    if not held_out:
        said = _foreign(said, torch.cat([present, own]), rng)
    templates = RECOLOUR_HELD_OUT if held_out else RECOLOUR
    phrases = [fill(templates, rng, old=name, colour=colour) for name, colour in zip(said, after, strict=True)]
    reverses = [UNCHANGED] * clips
    for i in torch.cat([present, own]).tolist():
        asked = f"make the {old[i]} {before[i]} again"
        reverses[i] = asked if before[i] else f"give the {old[i]} its own colour back"
    return _pairs(base, old_layers, new_layers, front, phrases, reverses, after)


def replace(bank: Bank, clips: int, frames: int, height: int, width: int, rng: Generator, held_out: bool) -> Pairs:
    index, old = named_sprites(bank, clips, rng)
    own, photos = named_photos(bank, bank.plated_photos, 0.0 if held_out else OWN, old, rng)
    chosen, new = _new_objects(bank, old, rng)
    said = old if held_out else spoken(old, rng)
    base, front = _scene(bank, list(zip(old, said, new, strict=True)), frames, height, width, rng, not held_out)
    everywhere = torch.arange(clips)
    pasted = torch.ones(clips, dtype=torch.bool).index_fill(0, own, False).nonzero()[:, 0]
    path = _object_paths(len(pasted), frames, height, width, rng, OBJECT_SIZES)
    pictures, old_middles = _sprites(bank, index[pasted], rng, not held_out)
    old_layers = _drawn(pictures, path, height, width, pasted)
    middles = torch.empty(clips, 2, frames).index_copy_(0, pasted, points_on(path, old_middles))
    if len(own):
        old_layers += [before_plates(bank, base, own, photos, rng)]
        middles[own] = seen_middles(old_layers[-1].stamp[:, :, 3])
    new_path = upright(_new_sizes(clips, height, width), middles)
    new_pictures = _objects(bank, chosen)
    new_layers = _drawn(new_pictures, new_path, height, width, everywhere)
    templates = REPLACE_HELD_OUT if held_out else REPLACE
    phrases = [fill(templates, rng, old=a, new=article(b)) for a, b in zip(said, new, strict=True)]
    reverses = [f"replace the {b} with {article(a)}" for a, b in zip(old, new, strict=True)]
    pairs = _pairs(base, old_layers, new_layers, front, phrases, reverses, new)

    def moved(right: float, down: float) -> Tensor:
        return paint(base, [*_drawn(new_pictures, new_path.moved(right, down), height, width, everywhere), *front])

    return dataclasses.replace(pairs, moved=moved)


def add(bank: Bank, clips: int, frames: int, height: int, width: int, rng: Generator, held_out: bool) -> Pairs:
    chosen, new = _new_objects(bank, [""] * clips, rng)
    base, front = _scene(bank, [(name,) for name in new], frames, height, width, rng, not held_out)
    base = paint(base, front)  # what is new is in front of everything
    words = list(PLACES)
    where = [words[0 if open_ else 1 + int(integers(rng, len(words) - 1))] for open_ in chance(rng, NO_PLACE, clips)]
    position = torch.tensor([PLACES[words] for words in where]) * torch.tensor([width, height])
    path = standing(_new_sizes(clips, height, width), position, frames)
    layers = _drawn(_objects(bank, chosen), path, height, width, torch.arange(clips))
    templates = ADD_HELD_OUT if held_out else ADD
    phrases = [fill(templates, rng, new=article(name), place=place) for name, place in zip(new, where, strict=True)]
    return _pairs(base, [], layers, [], phrases, [f"remove the {name}" for name in new], new)


def named_sprites(bank: Bank, count: int, rng: Generator) -> tuple[Tensor, list[str]]:
    """Numbers [count] on the CPU and names of sprites; every name is as likely as the others, whatever its styles."""
    if not bank.sprites_of:
        raise ValueError("expected sprites in the pack, it has none")
    names = list(bank.sprites_of)
    chosen = [names[i] for i in integers(rng, len(names), count).tolist()]
    styles = [bank.sprites_of[name] for name in chosen]
    return torch.tensor([style[int(integers(rng, len(style)))] for style in styles]), chosen


def recoloured(pictures: Tensor, colours: Sequence[str]) -> Tensor:
    """Cut-outs [m, 4, S, S] in named colours: their mean tone becomes the colour itself, darker and lighter tones run
    from it to black and towards white."""
    table = torch.tensor([COLOURS[colour] for colour in colours]).to(pictures.device, non_blocking=True)[
        ..., None, None
    ]
    tone, alpha = luma(pictures[:, :3]), pictures[:, 3:]
    mean = ((tone * alpha).sum((2, 3), keepdim=True) / alpha.sum((2, 3), keepdim=True).clamp_min(1)).clamp(0.2, 0.8)
    dark = table * (tone / mean).clamp(0, 1)
    light = ((tone - mean) / (1 - mean)).clamp(0, 1) * 0.55
    return torch.cat([dark + (1 - table) * light, alpha], 1)


def fill(templates: Sequence[str], rng: Generator, **words: str) -> str:
    """One of the templates, with a word left out where it is empty."""
    phrase = templates[int(integers(rng, len(templates)))].format(**words)
    return " ".join(phrase.split()).replace(" ?", "?")


def _scene(
    bank: Bank, avoid: Sequence[tuple[str, ...]], frames: int, height: int, width: int, rng: Generator, vary: bool
) -> tuple[Tensor, list[Layer]]:
    """Backdrops, some with an object on them, and a few objects for the front; none that `avoid` speaks of.

    avoid: for each clip, the names in its instruction.
    """
    n = len(avoid)
    taken = [set(map(_noun, names)) for names in avoid]
    base, _ = backdrops(bank, n, frames, height, width, rng, BACKDROPS)
    layers = []
    for share, high in ((BEHIND, 0.5), (IN_FRONT, 0.3)):
        index, names = named_sprites(bank, n, rng)
        fits = torch.tensor([used.isdisjoint(_words(name)) for name, used in zip(names, taken, strict=True)])
        members = (chance(rng, share * CROWDED if vary else share, n) & fits).nonzero()[:, 0]
        path = wander(len(members), frames, height, width, rng, 0.12, high)
        pictures, _ = _sprites(bank, index[members], rng, vary)
        layers.append(_drawn(pictures, path, height, width, members))
    behind, front = layers
    return paint(base, behind), front


def spoken(names: Sequence[str], rng: Generator) -> list[str]:
    """How objects are spoken of: by name, by the noun of it, or as "the object" and the like."""
    return [
        ANY[int(integers(rng, len(ANY)))] if u < ANYTHING else head(name) if u < ANYTHING + HEAD_ONLY else name
        for name, u in zip(names, uniform(rng, 0, 1, len(names)).tolist(), strict=True)
    ]


def _foreign(said: Sequence[str], shown: Tensor, rng: Generator) -> list[str]:
    """What is said of objects, some of those that are not `shown` under a word that other edits are known by."""
    foreign = chance(rng, FOREIGN, len(said)).index_fill(0, shown, False).tolist()
    words = integers(rng, len(FOREIGN_WORDS), len(said)).tolist()
    return [FOREIGN_WORDS[k] if other else name for name, other, k in zip(said, foreign, words, strict=True)]


def head(name: str) -> str:
    """The noun that a name says more about: "chair" of "chair with cushion", "car" of "small car"."""
    return re.split(r",| (?:with|without|in|on|and) ", name)[0].rsplit(" ", 1)[-1]


def _noun(name: str) -> str:
    return name.lower().rsplit(" ", 1)[-1]


def _words(name: str) -> set[str]:
    """All that may be said of an object."""
    return {_noun(name), head(name).lower(), *ANY}


def _object_paths(m: int, frames: int, height: int, width: int, rng: Generator, sizes: tuple[float, float]) -> Path:
    return in_sight(wander(m, frames, height, width, rng, *sizes), chance(rng, IN_SIGHT, m), height, width)


def _sprites(bank: Bank, index: Tensor, rng: Generator, vary: bool) -> tuple[Tensor, Tensor]:
    """Cut-outs [m, 4, S, S] in [0, 1] and their middles [m, 2]: see `bank.middles`."""
    middles = bank.sprite_middles[index]
    pictures = bank.sprites[index.to(bank.device, non_blocking=True)].float().div_(255)
    if not vary:
        return pictures, middles
    pictures, maps = varied(pictures, rng)
    return pictures, (maps @ middles[..., None])[..., 0]


def _objects(bank: Bank, index: Tensor) -> Tensor:
    return bank.object_pictures[index.to(bank.device, non_blocking=True)].float().div_(255)


def _drawn(pictures: Tensor, path: Path, height: int, width: int, clips: Tensor) -> list[Layer]:
    return [draw(pictures, path, height, width, clips)] if len(clips) else []


def _new_objects(bank: Bank, old: Sequence[str], rng: Generator) -> tuple[Tensor, list[str]]:
    """Numbers and names of the vocabulary, each unlike the old object of its clip."""
    if len(bank.objects) < 2:
        raise ValueError(f"expected a pack with the objects of the vocabulary, it has {len(bank.objects)}")
    chosen = integers(rng, len(bank.objects), len(old)).tolist()
    same = [_noun(bank.objects[i]) == _noun(name) for i, name in zip(chosen, old, strict=True)]
    chosen = [(i + 1) % len(bank.objects) if bad else i for i, bad in zip(chosen, same, strict=True)]
    return torch.tensor(chosen), [bank.objects[i] for i in chosen]


def _new_sizes(clips: int, height: int, width: int) -> Tensor:
    return torch.full((clips,), NEW_SIZE * min(height, width))


def _other_colour(colour: str, rng: Generator) -> str:
    others = [name for name in COLOURS if name not in (colour, ALIKE.get(colour))]
    return others[int(integers(rng, len(others)))]


def _pairs(
    base: Tensor,
    old: Sequence[Layer],
    new: Sequence[Layer],
    front: Sequence[Layer],
    phrases: Sequence[str],
    reverses: Sequence[str],
    subjects: Sequence[str],
) -> Pairs:
    return Pairs(
        source=paint(base, [*old, *front]),
        target=paint(base, [*new, *front]),
        region=cover(base, [*old, *new], front),
        phrases=tuple(phrases),
        reverses=tuple(reverses),
        subjects=tuple(subjects),
    )


def _edit(
    render: Callable[..., Pairs],
    example: str,
    share: float,
    phrasings: tuple[str, ...],
    held_out: tuple[str, ...],
    choices: tuple[str, ...] = (),
) -> Edit:
    return Edit(
        render.__name__, "object", render, example, share, phrasings=phrasings, held_out=held_out, choices=choices
    )


_EDITS = (
    _edit(remove, "remove the dog", 6.0, REMOVE, REMOVE_HELD_OUT),
    _edit(recolour, "make the car red", 6.0, RECOLOUR, RECOLOUR_HELD_OUT, tuple(COLOURS)),
    _edit(replace, "replace the dog with a cat", 11.0, REPLACE, REPLACE_HELD_OUT, tuple(VOCABULARY)),
    _edit(add, "add a cat on the left", 7.0, ADD, ADD_HELD_OUT, tuple(VOCABULARY)),
)
OBJECTS: dict[str, Edit] = {edit.name: edit for edit in _EDITS}
