"""What can be asked for by name: objects with one cut-out each, places with one picture each.

A new object or place must be the only true answer to its name, so both are fixed sets, the same for training and for
judging.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

OBJECTS = {  # name -> the cut-out, without its extension
    "cat": "render3d_cat",
    "dog": "render3d_dog",
    "car": "fluent3d_car",
    "apple": "fluent3d_red_apple",
    "banana": "fluent3d_banana",
    "umbrella": "fluent3d_umbrella",
    "guitar": "fluent3d_guitar",
    "soccer ball": "render3d_soccer_ball",
    "robot": "fluent3d_robot",
    "rose": "fluent3d_rose",
    "tree": "fluent3d_deciduous_tree",
    "chair": "render3d_chair",
    "pizza": "fluent3d_pizza",
    "rocket": "fluent3d_rocket",
    "bicycle": "render3d_bicycle",
    "airplane": "fluent3d_airplane",
    "bird": "fluent3d_bird",
    "owl": "fluent3d_owl",
    "penguin": "fluent3d_penguin",
    "elephant": "fluent3d_elephant",
    "horse": "render3d_horse",
    "rabbit": "render3d_rabbit",
    "frog": "fluent3d_frog",
    "turtle": "fluent3d_turtle",
    "fish": "fluent3d_fish",
    "butterfly": "fluent3d_butterfly",
    "snowman": "fluent3d_snowman",
    "ghost": "fluent3d_ghost",
    "sunflower": "fluent3d_sunflower",
    "strawberry": "fluent3d_strawberry",
    "watermelon": "fluent3d_watermelon",
    "pineapple": "fluent3d_pineapple",
    "hamburger": "render3d_hamburger",
    "donut": "fluent3d_doughnut",
    "teapot": "fluent3d_teapot",
    "backpack": "render3d_backpack",
    "television": "render3d_television",
    "bus": "fluent3d_bus",
    "truck": "fluent3d_truck",
    "train": "fluent3d_train",
    "sailboat": "fluent3d_sailboat",
    "motorcycle": "render3d_motorcycle",
    "basketball": "fluent3d_basketball",
    "drum": "fluent3d_drum",
    "gift": "render3d_gift",
    "cactus": "fluent3d_cactus",
    "duck": "fluent3d_duck",
    "parrot": "fluent3d_parrot",
    "cake": "fluent3d_birthday_cake",
    "star": "fluent3d_star",
}


@dataclass(frozen=True)
class Place:
    noun: str
    where: str  # after "I am"
    photo: str | None = None  # without its extension; None: drawn below


PLACES = {  # photos that may be shown again: CC0 or CC-BY
    "beach": Place("a beach", "on a beach"),
    "forest": Place("a forest", "in a forest", "380_forest_panorama_view"),
    "mountains": Place("mountains", "in the mountains", "272_picosdeeuropa"),
    "hills": Place("autumn hills", "in autumn hills", "267_aitzgorri"),
    "ocean": Place("the ocean", "by the ocean", "392_sunset_panorama_view"),
    "sunset": Place("a sunset", "in front of a sunset", "274_sunset"),
    "meadow": Place("a meadow", "on a meadow", "391_sunrise_panorama_view"),
    "stream": Place("a stream", "by a stream", "271_life"),
    "tulips": Place("tulips", "in front of tulips", "369_photo"),
    "dandelions": Place("a field of dandelions", "in a field of dandelions", "273_seeding"),
    "city": Place("a city", "in a city", "376_city_panorama_view"),
    "palace": Place("a palace at night", "in front of a palace at night", "213_zimni_palace"),
    "pagoda": Place("a pagoda", "in front of a pagoda", "306_china"),
    "Great Wall": Place("the Great Wall of China", "at the Great Wall of China", "200_great_wall"),
    "Louvre": Place("the Louvre", "in front of the Louvre", "203_le_musee"),
    "space": Place("outer space", "in outer space"),
    "green screen": Place("a green screen", "in front of a green screen"),
    "white studio": Place("a white studio", "in a white studio"),
    "black": Place("plain black", "in front of plain black"),
}


def beach(height: int, width: int) -> np.ndarray:
    """A pale sky, a sea that grows lighter towards the shore, and sand."""
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
    stops = (0.0, 0.42, 0.425, 0.66, 0.68, 0.70, 1.0)
    colours = np.array(
        [
            (92, 160, 226), (206, 230, 244),  # sky
            (24, 104, 160), (96, 196, 200),  # sea
            (250, 250, 246), (222, 198, 150), (244, 226, 184),  # foam and sand
        ]
    )  # fmt: skip
    shore = y + 0.012 * np.sin(9 * x) * (y > 0.5)
    picture = np.concatenate([np.interp(shore, stops, colours[:, i]) for i in range(3)], axis=-1)
    waves = 7 * np.sin(150 * (y - 0.425).clip(0) ** 0.7 + 2 * np.sin(7 * x))
    picture += np.where((y > 0.43) & (y < 0.66), waves, 0)
    return picture.clip(0, 255).round().astype(np.uint8)


def space(height: int, width: int) -> np.ndarray:
    """Stars of several sizes and a faint violet cloud on black."""
    import cv2

    rng = np.random.default_rng(7)
    cloud = cv2.GaussianBlur(rng.random((height, width)).astype(np.float32), (0, 0), 60)
    cloud = ((cloud - cloud.min()) / np.ptp(cloud))[..., None] ** 2
    picture = np.array([4, 5, 14], np.float32) + cloud * np.array([52, 24, 78], np.float32)
    for x, y, size in zip(rng.integers(0, width, 260), rng.integers(0, height, 260), rng.random(260), strict=True):
        light = np.zeros((height, width), np.float32)
        cv2.circle(light, (int(x), int(y)), 0 if size < 0.8 else 1, 1.0, -1)
        picture += cv2.GaussianBlur(light, (0, 0), 0.6 + 0.8 * size**4)[..., None] * (180 + 300 * size)
    return picture.clip(0, 255).round().astype(np.uint8)


def green_screen(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), (0, 177, 64), np.uint8)


def white_studio(height: int, width: int) -> np.ndarray:
    """A white wall that meets a slightly darker floor in a soft bend."""
    y = np.linspace(0, 1, height)[:, None, None]
    light = 244 - 26 / (1 + np.exp(-(y - 0.72) * 30)) + 8 * (1 - y)
    return np.broadcast_to(light, (height, width, 3)).clip(0, 255).round().astype(np.uint8)


def black(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


DRAWN: dict[str, Callable[[int, int], np.ndarray]] = {
    "beach": beach,
    "space": space,
    "green screen": green_screen,
    "white studio": white_studio,
    "black": black,
}


def article(name: str) -> str:
    """A name with the article that it needs: "a dog", "an owl", "scissors"."""
    last = name.rsplit(" ", 1)[-1].lower()
    if last.endswith("s") and not last.endswith(("ss", "us", "is")):
        return name
    vowel = name[0].lower() in "aeiou" and not name.lower().startswith(("uni", "uku", "one", "euro", "use", "ute"))
    return f"an {name}" if vowel else f"a {name}"
