import torch
from torch import Generator

from sana_streaming.data.bank import middles
from sana_streaming.data.layers import Path, cover, draw, in_sight, paint, points_on, standing, wander

F, H, W = 3, 48, 80


def red_square(m: int = 1) -> torch.Tensor:
    cutout = torch.zeros(m, 4, 128, 128, dtype=torch.uint8)
    cutout[:, 0], cutout[:, 3] = 255, 255
    return cutout


def test_a_cut_out_stands_where_it_is_put():
    path = standing(torch.tensor([20.0]), torch.tensor([[59.5, 23.5]]), F)
    layer = draw(red_square(), path, H, W, torch.tensor([1]), shadows=False)
    clips = paint(torch.zeros(2, F, 3, H, W), [layer])
    assert clips[0].max() == 0
    red = clips[1, :, 0] > 0.5
    assert torch.equal(red[0], red[-1])
    rows, columns = red[0].nonzero().unbind(-1)
    assert abs(rows.float().mean() - 23.5) < 0.6
    assert abs(columns.float().mean() - 59.5) < 0.6
    assert 360 < red[0].sum() < 440


def test_points_of_a_cut_out_are_found_on_its_way():
    cutout = torch.zeros(1, 4, 128, 128, dtype=torch.uint8)
    cutout[0, 3, 20:50, 70:110] = 255
    position = torch.tensor([[[60.0, 66.0, 70.0], [50.0, 48.0, 45.0]]])
    path = Path(torch.full((1, 3), 64.0), torch.tensor([[0.0, 0.7, -1.2]]), position, torch.zeros(1, 2, 3))
    alpha = draw(cutout, path, 100, 128, torch.arange(1), shadows=False).stamp[0, :, 3]
    x, y = torch.arange(128.0), torch.arange(100.0)
    total = alpha.sum((1, 2))
    seen = torch.stack([(alpha.sum(1) @ x) / total, (alpha.sum(2) @ y) / total])
    assert torch.allclose(points_on(path, middles(cutout))[0], seen, atol=0.6)


def test_cover_is_where_painting_changes_something():
    white = torch.ones(1, F, 3, H, W)
    path = standing(torch.tensor([20.0]), torch.tensor([[40.0, 24.0]]), F)
    layer = draw(red_square(), path, H, W, torch.tensor([0]))
    region = cover(white, [layer], [])
    changed = (paint(white, [layer]) - white).abs().amax(2, keepdim=True) > 1e-4
    assert torch.equal(changed, region > 1e-4)
    assert region.min() >= 0
    assert region.max() <= 1
    assert cover(white, [layer], [layer])[:, :, :, 18:30, 34:46].max() < 1e-4  # hidden behind what is in front


def test_shadows_darken_what_is_below():
    grey = torch.full((1, F, 3, H, W), 0.5)
    path = standing(torch.tensor([20.0]), torch.tensor([[40.0, 24.0]]), F)
    bare, shaded = (paint(grey, [draw(red_square(), path, H, W, torch.tensor([0]), use)]) for use in (False, True))
    assert (shaded <= bare + 1e-6).all()
    assert (bare - shaded).max() > 0.1


def test_paths_in_sight_begin_inside_and_keep_their_motion():
    path = wander(200, 9, H, W, Generator().manual_seed(0))
    visible = torch.arange(200) < 150
    moved = in_sight(path, visible, H, W)
    assert torch.equal(moved.position[150:], path.position[150:])
    assert (moved.position.diff(dim=-1) - path.position.diff(dim=-1)).abs().max() < 1e-3
    first = moved.position[:150, :, 0]
    assert first.min() > 0
    assert (first < torch.tensor([W, H])).all()
