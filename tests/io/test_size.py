import dataclasses
import math

import numpy as np
import pytest

from sana_streaming.io.size import Geometry, working_geometry

RELEASED = {"stride": 32, "trained": (1280, 704)}


@pytest.mark.parametrize(
    ("source", "short", "expected"),
    [
        ((1920, 1080), None, (456, 256)),
        ((1080, 1920), None, (256, 456)),
        ((640, 480), None, (342, 256)),
        ((255, 143), None, (255, 143)),  # small: kept
        ((200, 100), 256, (512, 256)),  # asked for: enlarged
        ((256, 256), None, (256, 256)),
        ((4000, 20), 32, (6400, 32)),
    ],
    ids=str,
)
def test_a_model_of_any_size_takes_the_whole_picture(source, short, expected):
    found = working_geometry(source, 16, short=short, default=256)
    assert found == Geometry(expected, expected, 16)
    assert all(0 <= g - p < 16 and g % 16 == 0 for g, p in zip(found.grid, expected, strict=True))
    assert found.in_source(source) == source


def test_the_default_is_the_callers():
    assert working_geometry((3840, 2160), 16, default=512).picture == (910, 512)


@pytest.mark.parametrize(
    ("source", "picture", "grid"),
    [
        ((1280, 704), (1280, 704), (1280, 704)),
        ((1920, 1080), (1252, 704), (1280, 704)),
        ((1080, 1920), (704, 1252), (704, 1280)),
        ((640, 360), (1252, 704), (1280, 704)),
        ((1440, 1080), (1088, 816), (1088, 832)),
        ((500, 500), (960, 960), (960, 960)),
        ((2560, 1080), (1442, 608), (1472, 608)),
    ],
    ids=str,
)
def test_a_model_of_one_size_gets_about_as_many_pixels(source, picture, grid):
    found = working_geometry(source, **RELEASED)
    assert (found.scaled, found.picture, found.grid) == (picture, picture, grid)
    cropped = working_geometry(source, fit="crop", **RELEASED)
    assert cropped.picture == cropped.grid == grid
    assert min(s - p for s, p in zip(cropped.scaled, grid, strict=True)) == 0


def test_a_size_that_is_asked_for_wins():
    assert working_geometry((1920, 1080), short=480, **RELEASED) == Geometry((854, 480), (854, 480), 32)
    assert working_geometry((1920, 1080), short=480, fit="crop", **RELEASED) == Geometry((864, 486), (864, 480), 32)


@pytest.mark.parametrize("fit", ["letterbox", "crop"])
@pytest.mark.parametrize("stride", [16, 32])
@pytest.mark.parametrize("short", [None, 33, 704])
@pytest.mark.parametrize("trained", [(), (1280, 704)], ids=["any", "one"])
def test_nothing_is_stretched_and_all_is_on_the_grid(fit, stride, short, trained):
    rng = np.random.default_rng(0)
    for _ in range(200):
        source = width, height = tuple(int(side) for side in rng.integers(300, 3000, 2))
        found = working_geometry(source, stride, fit=fit, short=short, trained=trained)
        assert abs(math.log(found.scaled[0] / found.scaled[1] * height / width)) < 2.1 / min(found.scaled)
        assert all(side % stride == 0 and side >= stride for side in found.grid)
        assert all(p <= s for p, s in zip(found.picture, found.scaled, strict=True))
        if fit == "crop":
            assert found.picture == found.grid
        else:
            assert found.picture == found.scaled
            assert all(g - p < stride for g, p in zip(found.grid, found.picture, strict=True))
        if trained and short is None:
            assert 0.85 < math.prod(found.grid) / math.prod(trained) < 1.15


def test_a_crop_is_the_middle():
    rgb = np.zeros((8, 10, 3), np.uint8)
    rgb[2:6, 3:7] = 1
    picture = Geometry((10, 8), (4, 4), 2).cropped(rgb)
    assert picture.shape == (4, 4, 3)
    assert picture.min() == 1
    assert np.shares_memory(picture, rgb)
    assert Geometry((10, 8), (10, 8), 16).cropped(rgb).shape == rgb.shape


def test_a_crop_in_pixels_of_the_source():
    assert working_geometry((3840, 2160), fit="crop", **RELEASED).in_source((3840, 2160)) == (3840, 2112)


def test_people_are_told():
    source = (1920, 1080)
    assert working_geometry(source, **RELEASED).told(source) == (
        "1920x1080 is edited at 1252x704, letterboxed to 1280x704 (the bars are cut off again)"
    )
    assert working_geometry(source, fit="crop", **RELEASED).told(source) == (
        "1920x1080 is edited at 1280x704, cropped from 1280x720 (2.2 % of the picture is lost)"
    )
    assert working_geometry((512, 256), 16).told((512, 256)) == "512x256 is edited at 512x256"


def test_what_is_not_known_is_refused():
    with pytest.raises(ValueError, match="unknown fit 'stretch': expected letterbox or crop"):
        working_geometry((64, 48), 16, fit="stretch")


def test_it_is_a_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        working_geometry((64, 48), 16).stride = 8
