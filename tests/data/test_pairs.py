import numpy as np
import pytest
import torch
from torch import Generator

from sana_streaming.data.bank import Bank
from sana_streaming.data.edits import EDITS
from sana_streaming.data.pairs import EDITS_PER_BATCH, render_batch
from sana_streaming.data.show import contact_sheet


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def test_targets_are_the_edits_of_their_sources(bank: Bank):
    batch = render_batch(bank, 12, 3, 64, 96, seeded())
    assert batch.source.shape == batch.target.shape == (12, 3, 3, 64, 96)
    assert len(batch.edits) == len(batch.phrases) == 12
    assert len(set(batch.edits)) == EDITS_PER_BATCH
    for source, target, name, phrase in zip(batch.source, batch.target, batch.edits, batch.phrases, strict=True):
        assert phrase in EDITS[name].phrasings
        if not EDITS[name].particles:
            edited = EDITS[name].apply(source[None], seeded())[0]
            torch.testing.assert_close(target, edited, atol=1e-3, rtol=0)


def test_batches_follow_the_seed(bank: Bank):
    first, again = render_batch(bank, 6, 2, 64, 64, seeded(1)), render_batch(bank, 6, 2, 64, 64, seeded(1))
    assert torch.equal(first.target, again.target)
    assert first.phrases == again.phrases
    assert first.phrases != render_batch(bank, 6, 2, 64, 64, seeded(2)).phrases


def test_edits_and_held_out_phrasings_can_be_asked_for(bank: Bank):
    batch = render_batch(bank, 5, 2, 64, 64, seeded(), edits=("sepia", "rain"), held_out=True)
    assert set(batch.edits) == {"sepia", "rain"}
    assert all(phrase in EDITS[name].held_out for name, phrase in zip(batch.edits, batch.phrases, strict=True))
    with pytest.raises(ValueError, match="edits: expected names among"):
        render_batch(bank, 5, 2, 64, 64, seeded(), edits=("sandwich",))


def test_a_contact_sheet_shows_every_tile(bank: Bank):
    sheet = contact_sheet(bank, 2, 1, 64, 2, seeded(), ["sepia", "neon"])
    assert sheet.shape == (2 * (22 + 128), 128, 3)
    assert sheet.dtype == np.uint8
