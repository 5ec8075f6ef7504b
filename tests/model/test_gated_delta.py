"""The memory of a contractive model stays bounded, whatever its keys."""

import torch

from sana_streaming.config import DiTConfig
from sana_streaming.model.gated_delta import GatedDeltaAttention, GatedDeltaState
from sana_streaming.model.rope import rotary

SHAPE = (2, 2, 3, 4, 32)  # [B, T, H, W, D]


def attention(contractive: bool, key_scale: float) -> GatedDeltaAttention:
    config = DiTConfig(4, dim=32, depth=1, heads=2, text_dim=8, ffn_dim=32, contractive=contractive)
    torch.manual_seed(0)
    block = GatedDeltaAttention(config).eval()
    block.k_norm.weight.data.mul_(key_scale)
    return block


def run(block: GatedDeltaAttention, chunks: int) -> tuple[list[torch.Tensor], GatedDeltaState]:
    generator = torch.Generator().manual_seed(0)
    state, outputs = block.init_state(2, (3, 4)), []
    with torch.no_grad():
        for chunk in range(chunks):
            x = torch.randn(SHAPE, generator=generator)
            turn = rotary(torch.full((2,), 2 * chunk), (2, 3, 4), 16, 10000.0)
            y, state = block(x, turn, state)
            outputs.append(y)
    return outputs, state


def test_long_keys_make_the_memory_grow_without_end():
    """What the other tests are about."""
    short, long = (run(attention(False, scale), 12)[1].memory.abs().max() for scale in (1.0, 4.0))
    assert long > 1e4 * short


def test_a_contractive_memory_stays_bounded():
    first = run(attention(True, 4.0), 1)[1].memory.abs().max()
    late = run(attention(True, 4.0), 100)[1].memory.abs().max()
    assert late < 100 * first


def test_short_keys_are_left_alone():
    free, bound = (run(attention(contractive, 1.0), 4) for contractive in (False, True))
    for one, other in zip(free[0], bound[0], strict=True):
        assert torch.equal(one, other)


def test_the_first_frame_reads_the_same():
    """What is read is a ratio, in which the length of the keys cancels."""
    x = torch.randn(1, 1, 3, 4, 32, generator=torch.Generator().manual_seed(0))
    turn = rotary(torch.zeros(1, dtype=torch.int64), (1, 3, 4), 16, 10000.0)
    with torch.no_grad():
        results = [
            block(x, turn, block.init_state(1, (3, 4)))[0] for block in (attention(c, 4.0) for c in (True, False))
        ]
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-4)
