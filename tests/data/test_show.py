import numpy as np
import pytest
from torch import Generator

from sana_streaming.data.bank import Bank
from sana_streaming.data.edits import EDITS
from sana_streaming.data.show import LABEL, contact_sheet


@pytest.mark.parametrize("edits", [["sepia", "remove", "two_looks"], None], ids=["some", "all"])
def test_a_contact_sheet_shows_every_edit(edits: list[str] | None, bank: Bank):
    sheet = contact_sheet(bank, 2, 1, 32, 2, Generator().manual_seed(0), edits)
    rows = -(-len(edits or EDITS) // 2)
    assert sheet.shape == (rows * (LABEL + 2 * 32), 2 * 2 * 32, 3)
    assert sheet.dtype == np.uint8
