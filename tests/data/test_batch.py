from collections import Counter

import pytest
import torch
from torch import Generator

from sana_streaming.data.bank import Bank
from sana_streaming.data.batch import GROUPS, _draw, render_batch
from sana_streaming.data.edits import EDITS


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def test_a_batch_has_a_few_edits(bank: Bank):
    batch = render_batch(bank, 19, 2, 64, 96, seeded())
    assert batch.source.shape == batch.target.shape == (19, 2, 3, 64, 96)
    assert batch.region.shape == (19, 2, 1, 64, 96)
    assert len(batch.edits) == len(batch.phrases) == len(batch.reverses) == len(batch.subjects) == 19
    assert GROUPS // 2 <= len(set(batch.edits)) <= GROUPS


def test_batches_follow_the_seed(bank: Bank):
    first, again = render_batch(bank, 6, 2, 64, 64, seeded(1)), render_batch(bank, 6, 2, 64, 64, seeded(1))
    assert torch.equal(first.target, again.target)
    assert first.phrases == again.phrases
    assert first.phrases != render_batch(bank, 6, 2, 64, 64, seeded(2)).phrases


def test_a_batch_knows_what_may_be_moved(bank: Bank):
    batch = render_batch(bank, 9, 2, 64, 96, seeded(), edits=("night", "replace", "remove"))
    assert batch.moved is not None
    assert batch.movable == tuple(i for i, name in enumerate(batch.edits) if name == "replace")
    assert torch.equal(batch.moved(0, 0), batch.target[list(batch.movable)])
    still = render_batch(bank, 4, 2, 64, 96, seeded(), edits=("night", "remove"))
    assert still.moved is None
    assert still.movable == ()


def test_edits_and_held_out_phrasings_can_be_asked_for(bank: Bank):
    batch = render_batch(bank, 5, 2, 64, 64, seeded(), edits=("grayscale", "negative"), held_out=True)
    assert set(batch.edits) == {"grayscale", "negative"}
    assert all(phrase in EDITS[name].held_out for name, phrase in zip(batch.edits, batch.phrases, strict=True))
    with pytest.raises(ValueError, match="edits: expected names among"):
        render_batch(bank, 5, 2, 64, 64, seeded(), edits=("sandwich",))


def test_some_edits_can_be_drawn_more_often_or_never(bank: Bank):
    plain, more = (
        Counter(render_batch(bank, 8, 1, 32, 32, seeded(i), emphasis=emphasis).edits[0] for i in range(40))
        for emphasis in (None, {"replace": 1e9})
    )
    assert len(plain) > 5
    assert set(more) == {"replace"}
    never = render_batch(bank, 8, 1, 32, 32, seeded(), edits=("negative", "night"), emphasis={"night": 0})
    assert set(never.edits) == {"negative"}
    with pytest.raises(ValueError, match="got \\['sandwich'\\]"):
        render_batch(bank, 5, 2, 64, 64, seeded(), emphasis={"sandwich": 2})


def test_edits_are_drawn_by_their_shares():
    rng = seeded()
    shares = [0.5, 1.0, 2.0, 4.0, 7.0]
    drawn = Counter(i for _ in range(500) for i in _draw(shares, 8, rng))
    for i, share in enumerate(shares):
        assert abs(drawn[i] / 4000 - share / sum(shares)) < 0.02


def test_equal_shares_are_drawn_once_each():
    assert sorted(_draw([1.0] * 8, 8, seeded())) == list(range(8))
