import pytest
import torch

from sana_streaming.eval.codec import measure_codec

from .conftest import PassThrough


def test_a_pulsing_codec_is_found_out() -> None:
    sources = {"photos": [torch.randint(0, 256, (2, 16, 32, 48, 3), dtype=torch.uint8)]}
    assert measure_codec(PassThrough(), sources)["still, change of 255"] == 0
    pulsing = measure_codec(PassThrough(pulse=2 / 255), sources)  # of a range of 2: one level of 255
    assert pulsing["still, change of 255"] == pytest.approx(1, abs=0.05)
    assert pulsing["photos, dB"] < 55
