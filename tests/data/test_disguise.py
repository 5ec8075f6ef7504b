import pytest
import torch
from torch import Generator

from sana_streaming.data import disguise, foregrounds
from sana_streaming.data.bank import Bank

F, H, W = 3, 64, 96


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def discs(n: int) -> torch.Tensor:
    """Masks [n, 1, H, W] of a disc."""
    y, x = torch.arange(H)[:, None] - 30.0, torch.arange(W) - 48.0
    return (torch.hypot(x, y) < 20).float().expand(n, 1, H, W).clone()


def test_some_photographs_are_darker_and_some_lighter():
    pictures = torch.full((60, 1, 3, 4, 4), 0.5)
    change = (disguise.dimmed(pictures, seeded(0)) - pictures)[:, 0, 0, 0, 0]
    assert 10 < (change != 0).sum() < 30
    assert change.max() > 0.05
    assert change.min() < -0.05
    assert change.abs().max() < 0.5


def test_some_foregrounds_are_nearer_to_what_is_around_them_and_none_is_past_it():
    alpha = discs(40)[:, None].expand(-1, F, -1, -1, -1)
    stamp = torch.cat([alpha * 0.9, alpha * 0.5, alpha * 0.1, alpha], 2)
    behind = torch.full((40, F, 3, H, W), 0.2)
    likened = disguise.likened(stamp, behind, seeded(1))
    torch.testing.assert_close(likened[:, :, 3:], alpha)
    inside = alpha[:, :, 0] > 0
    assert (likened[:, :, :3] * (1 - alpha)).abs().max() == 0
    apart = (likened[:, :, 0] - 0.2)[inside].view(40, -1) / 0.7  # 1 as it was, 0 as what is around
    assert apart.max() <= 1.001
    assert apart.min() > 1 - disguise.NEARER - 0.02
    changed = apart.amin(1) < 0.98
    assert 6 < changed.sum() < 30
    in_parts = apart.amax(1) - apart.amin(1) > 0.05
    assert 0.2 < in_parts[changed].float().mean() < 0.9


def test_what_covers_all_has_nothing_around_it():
    stamp = torch.ones(8, F, 4, H, W)
    likened = disguise.likened(stamp, torch.zeros(8, F, 3, H, W), seeded(0))
    assert likened.isfinite().all()


def test_what_subjects_rest_on_is_below_and_behind_them(bank: Bank):
    masks = discs(60)
    pictures, seen = disguise.rests(bank, masks, seeded(2))
    assert pictures.shape == (60, 3, H, W)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert (seen * masks).abs().max() == 0  # the subject is before it
    assert seen[:, :, 50:].max() == 0  # it ends where the subject does
    assert seen[:, :, :26].max() == 0  # half of the subject's height and less
    some = seen.flatten(1).amax(1) > 0.5
    assert 0.1 < some.float().mean() < 0.5


@pytest.mark.parametrize("kind", ["own", "sprites"])
def test_what_subjects_rest_on_stays_with_them(bank: Bank, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(foregrounds, "FOREGROUNDS", {name: float(name == kind) for name in foregrounds.FOREGROUNDS})
    monkeypatch.setattr(foregrounds, "COMPANY", 0.0)

    def shown(seated: float) -> torch.Tensor:
        monkeypatch.setattr(disguise, "SEATED", seated)
        source, stamp = foregrounds.foreground_scenes(bank, 12, F, 2 * H, 2 * W, seeded(4), True)
        solid = (stamp[:, :, 3:] > 0.99).expand_as(source)
        torch.testing.assert_close(source[solid], stamp[:, :, :3][solid], atol=0.011, rtol=0)
        return stamp[:, :, 3]

    alone, seated = shown(0.0), shown(1.0)
    assert (seated - alone).min() > -1e-3
    assert ((seated - alone).flatten(1).amax(1) > 0.9).sum() > 6


def test_nothing_is_disguised_to_judge_on(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    def forbidden(*args: object) -> torch.Tensor:
        raise AssertionError

    for name in ("dimmed", "likened", "rests"):
        monkeypatch.setattr(foregrounds, name, forbidden)
    foregrounds.foreground_scenes(bank, 12, F, H, W, seeded(1), False)
    with pytest.raises(AssertionError):
        foregrounds.foreground_scenes(bank, 12, F, H, W, seeded(1), True)
