"""Parity with numbers of the published code: what reproduces them computes what the released checkpoints compute."""

from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sana_streaming.checkpoint import from_published
from sana_streaming.config import DiTConfig, two_b
from sana_streaming.diffusion.dpm_solver import dpm_sigmas, sample_clip
from sana_streaming.diffusion.flow import guided, sigmas
from sana_streaming.diffusion.sampler import sample_chunk
from sana_streaming.model.block import BlockState
from sana_streaming.model.dit import DiT, DiTState, TextContext
from sana_streaming.model.embed import modulate, timestep_frequencies
from sana_streaming.model.ffn import FeedForwardState
from sana_streaming.model.gated_delta import GatedDeltaState
from sana_streaming.model.rope import rotary
from sana_streaming.model.softmax_attention import KeysValues, SoftmaxState
from sana_streaming.ops.gated_delta import gated_delta

CONFIG = DiTConfig(latent_channels=8, dim=224, depth=4, heads=2, text_dim=32, ffn_dim=672)
GRID = (4, 6)
BOUNDS = (0, 5, 8, 11, 14)
PART = Path(__file__).parents[1] / "golden" / "dit_part.safetensors"


def error(got: Tensor, expected: Tensor) -> float:
    """Relative L2 distance."""
    return float((got.double() - expected.double()).norm() / expected.double().norm())


def on_grid(tokens: Tensor) -> Tensor:
    """[B, L, D] -> [B, T, H, W, D]"""
    return tokens.unflatten(1, (-1, *GRID))


def gated_delta_state(cache: dict[str, Tensor], prefix: str) -> GatedDeltaState:
    """The published cache holds the memory transposed and the normaliser as a column."""
    return GatedDeltaState(cache[f"{prefix}.slot0"].transpose(-1, -2), cache[f"{prefix}.slot1"][..., 0])


def softmax_state(cache: dict[str, Tensor], prefix: str) -> SoftmaxState:
    keys, values = (cache[f"{prefix}.slot{i}"].transpose(-1, -2) for i in (1, 2))
    return SoftmaxState(sink=KeysValues(keys, values), recent=())


def last_frame(cache: dict[str, Tensor], prefix: str) -> Tensor:
    """[B, D, 1, S] -> [B, H, W, D]"""
    return cache[f"{prefix}.slot5"][:, :, 0].transpose(1, 2).unflatten(1, GRID)


# On the numbers that lie beside the tests.


@pytest.fixture(scope="module")
def part() -> dict[str, Tensor]:
    return {k.removeprefix("data."): v for k, v in load_file(PART).items() if k.startswith("data.")}


@pytest.fixture(scope="module")
def part_dit() -> DiT:
    """Blocks 0 and 3 hold published weights (3: attention only), the rest is random."""
    torch.manual_seed(0)
    dit = DiT(CONFIG).eval()
    weights = {k.removeprefix("weights."): v.float() for k, v in load_file(PART).items() if k.startswith("weights.")}
    filled = {k: weights.get(k, torch.zeros(s)) for k, s in published_shapes().items()}
    ours = from_published(filled, CONFIG)
    kept = ("blocks.0.", "blocks.3.attention.", "blocks.3.scale_shift_table")
    dit.load_state_dict({k: v for k, v in ours.items() if k.startswith(kept)}, strict=False)
    return dit.requires_grad_(False)


def test_timestep(part: dict[str, Tensor]) -> None:
    got = timestep_frequencies(part["unit.timestep_sincos.t"] / 1000)
    assert error(got, part["unit.timestep_sincos.out"]) < 1e-5


def test_rotary_of_later_frames(part: dict[str, Tensor]) -> None:
    turn = rotary(torch.tensor([5]), (3, *GRID), 112, 10000.0)
    assert error(turn.cos[0, 0], part["unit.rope_5_8.cos"]) < 1e-6
    assert error(turn.sin[0, 0], part["unit.rope_5_8.sin"]) < 1e-6


def test_noise_levels_of_the_bidirectional_sampler(part: dict[str, Tensor]) -> None:
    assert error(torch.tensor(dpm_sigmas(50, shift=8.0)), part["dpm.sigmas50"]) < 1e-6


def test_gated_delta_memory(part: dict[str, Tensor]) -> None:
    frames, tokens = 4, 5
    by_frame = {
        n: part[f"unit.gdn.{n}"].transpose(-1, -2).unflatten(2, (frames, tokens))
        for n in ("q", "k", "v", "q_rot", "k_rot")
    }
    o, memory, normalizer = gated_delta(
        *by_frame.values(),
        part["unit.gdn.beta"].permute(0, 3, 1, 2),
        part["unit.gdn.decay"],
        part["unit.gdn.state_kv_in"].transpose(-1, -2),
        part["unit.gdn.state_z_in"][..., 0],
    )
    assert error(memory, part["unit.gdn.state_kv_out"].transpose(-1, -2)) < 1e-6
    assert error(normalizer, part["unit.gdn.state_z_out"][..., 0]) < 1e-6
    # The golden output is the forward direction alone, which is what the last frame of a chunk sees.
    forward = part["unit.gdn.num_fwd"] / (part["unit.gdn.den_fwd"] + 1e-8)
    assert error(o[:, :, -1], forward.transpose(-1, -2)[:, :, -tokens:]) < 1e-5


def test_gates(part_dit: DiT, part: dict[str, Tensor]) -> None:
    beta, decay = part_dit.blocks[0].attention.gates(on_grid(part["unit.gates.x"]))
    assert error(beta, part["unit.gates.beta"].permute(0, 3, 1, 2)) < 1e-6
    assert error(decay, part["unit.gates.decay"]) < 1e-6


def test_gated_delta_block_in_a_stream(part_dit: DiT, part: dict[str, Tensor]) -> None:
    block = part_dit.blocks[0]
    x, modulation = on_grid(part["call5.x_embed"]), part["call5.t_block"].unflatten(-1, (1, 6, -1))
    turn = rotary(torch.tensor([5]), (3, *GRID), CONFIG.head_dim, CONFIG.rope_theta)
    state = BlockState(gated_delta_state(part, "cache.block0"), FeedForwardState(last_frame(part, "cache.block0")))
    keys, values = block.cross_attention.keys_values(part["call5.y"][:, 0][:, part["mask"][0].bool()])
    out, _ = block(x, modulation, turn, keys, values, None, state)
    assert error(out, on_grid(part["call5.block0.out"])) < 1e-5

    shift, scale, *_ = (block.scale_shift_table + modulation)[:, :, None, None].unbind(-2)
    attention, _ = block.attention(modulate(x, shift, scale, CONFIG.norm_eps), turn, state.attention)
    assert error(attention, on_grid(part["call5.block0.attn"])) < 1e-5


def test_softmax_attention_in_a_stream(part_dit: DiT, part: dict[str, Tensor]) -> None:
    block = part_dit.blocks[3]
    modulation = part["call5.t_block"].unflatten(-1, (1, 6, -1))
    shift, scale, *_ = (block.scale_shift_table + modulation)[:, :, None, None].unbind(-2)
    turn = rotary(torch.tensor([5]), (3, *GRID), CONFIG.head_dim, CONFIG.rope_theta)
    x = modulate(on_grid(part["call5.block2.out"]), shift, scale, CONFIG.norm_eps)
    out, _ = block.attention(x, turn, softmax_state(part, "cache.block3"))
    assert error(out, on_grid(part["call5.block3.attn"])) < 1e-5


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published streaming variant at the size of the golden model, without unused buffers."""
    d, f = CONFIG.dim, CONFIG.ffn_dim
    shapes: dict[str, tuple[int, ...]] = {
        "x_embedder.proj.weight": (d, 16, 1, 1, 1), "x_embedder.proj.bias": (d,),
        "t_embedder.mlp.0.weight": (d, 256), "t_embedder.mlp.0.bias": (d,),
        "t_embedder.mlp.2.weight": (d, d), "t_embedder.mlp.2.bias": (d,),
        "t_block.1.weight": (6 * d, d), "t_block.1.bias": (6 * d,),
        "y_embedder.y_proj.fc1.weight": (d, 32), "y_embedder.y_proj.fc1.bias": (d,),
        "y_embedder.y_proj.fc2.weight": (d, d), "y_embedder.y_proj.fc2.bias": (d,),
        "attention_y_norm.weight": (d,),
        "final_layer.scale_shift_table": (2, d), "final_layer.linear.weight": (8, d), "final_layer.linear.bias": (8,),
    }  # fmt: skip
    for i in range(CONFIG.depth):
        softmax = i in CONFIG.softmax_blocks
        block: dict[str, tuple[int, ...]] = {
            "scale_shift_table": (6, d),
            "attn.q.weight": (d, d, 3 if softmax else 1), "attn.k.weight": (d, d, 3 if softmax else 1),
            "attn.v.weight": (d, d), "attn.q_norm.weight": (d,), "attn.k_norm.weight": (d,),
            "attn.output_gate.weight": (d, d), "attn.output_gate.bias": (d,),
            "attn.proj.weight": (d, d), "attn.proj.bias": (d,),
            "cross_attn.q_linear.weight": (d, d), "cross_attn.q_linear.bias": (d,),
            "cross_attn.kv_linear.weight": (2 * d, d), "cross_attn.kv_linear.bias": (2 * d,),
            "cross_attn.proj.weight": (d, d), "cross_attn.proj.bias": (d,),
            "cross_attn.q_norm.weight": (d,), "cross_attn.k_norm.weight": (d,),
            "mlp.inverted_conv.conv.weight": (2 * f, d, 1, 1), "mlp.inverted_conv.conv.bias": (2 * f,),
            "mlp.depth_conv.conv.weight": (2 * f, 1, 3, 3), "mlp.depth_conv.conv.bias": (2 * f,),
            "mlp.point_conv.conv.weight": (d, f, 1, 1), "mlp.t_conv.weight": (d, d, 3, 1),
        }  # fmt: skip
        if not softmax:
            block |= {f"attn.{n}_proj.weight": (2, d) for n in ("beta", "gate")}
            block |= {f"attn.{n}_proj.bias": (2,) for n in ("beta", "gate")}
            block |= {"attn.A_log": (2,), "attn.dt_bias": (2,)}
        shapes |= {f"blocks.{i}.{n}": s for n, s in block.items()}
    return shapes


# On the whole golden set.


@pytest.fixture(scope="module")
def data(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "dit" / "golden_data.safetensors")


@pytest.fixture(scope="module")
def published(golden: Path) -> dict[str, Tensor]:
    return {k: v.float() for k, v in load_file(golden / "dit" / "golden_weights.safetensors").items()}


@pytest.fixture(scope="module")
def dit(published: dict[str, Tensor]) -> DiT:
    return load(published, CONFIG)


def test_shapes_are_the_published_ones(published: dict[str, Tensor]) -> None:
    unused = {"pos_embed", "y_embedder.y_embedding"}
    assert {k: tuple(v.shape) for k, v in published.items() if k not in unused} == published_shapes()


@pytest.mark.parametrize("variant", ["streaming", "bidirectional"])
def test_bidirectional_clip(published: dict[str, Tensor], data: dict[str, Tensor], variant: str) -> None:
    if variant == "bidirectional":
        dense = {f"blocks.3.attn.{n}.weight": published[f"blocks.3.attn.{n}.weight"][:, :, 1] for n in "qk"}
        published = published | dense
    dit = load(published, CONFIG)
    text = dit.encode_text(data["bidi.in.y"][:, 0], data["bidi.in.mask"])
    outputs = record_blocks(dit)
    velocity, _ = dit(
        data["bidi.in.x"], data["bidi.in.t"] / 1000, dit.init_state(2, GRID), source=data["bidi.in.cond"], text=text
    )
    assert error(velocity, data["bidi.out.v"]) < 1e-5
    for i, out in enumerate(outputs):
        assert error(out, on_grid(data[f"bidi.act.block{i}.out"])) < 1e-5


def test_a_noise_level_for_each_frame(dit: DiT, data: dict[str, Tensor]) -> None:
    text = dit.encode_text(data["bidi.in.y"][:, 0], data["bidi.in.mask"])
    sigma = data["bidi_frame_t.in.t"][:, 0] / 1000
    velocity, _ = dit(data["bidi.in.x"], sigma, dit.init_state(2, GRID), source=data["bidi.in.cond"], text=text)
    assert error(velocity, data["bidi_frame_t.out.v"]) < 1e-5


def test_stream_with_every_state(dit: DiT, data: dict[str, Tensor]) -> None:
    text, calls = prompt(dit, data), []

    def denoise(x: Tensor, sigma: float, state: DiTState, source: Tensor) -> tuple[Tensor, DiTState]:
        velocity, after = dit(x, sigma, state, source=source, text=text)
        calls.append((velocity, after))
        return velocity, after

    state, latents = dit.init_state(1, GRID), []
    for start, end in pairwise(BOUNDS):
        step = partial(denoise, source=data["stream.in.cond"][:, :, start:end])
        chunk, state = sample_chunk(step, data["stream.in.noise"][:, :, start:end], levels(4), state)
        latents.append(chunk)
    assert error(torch.cat(latents, dim=2), data["stream.out.latents"]) < 1e-5
    for i, (velocity, _) in enumerate(calls[:-1]):  # the published run skips the last commit
        assert error(velocity, data[f"stream.call{i:02d}.v"]) < 1e-5
    for i in (4, 9, 14):
        for b, block in enumerate(calls[i][1].blocks):
            prefix = f"stream.call{i:02d}.cache.block{b}"
            assert error(block.ffn.last, last_frame(data, prefix)) < 1e-5
            if isinstance(block.attention, GatedDeltaState):
                expected = gated_delta_state(data, prefix)
                assert error(block.attention.memory, expected.memory) < 1e-5
                assert error(block.attention.normalizer, expected.normalizer) < 1e-5
            else:
                got = block.attention.sink if i == 4 else block.attention.recent[-1]
                expected_kv = softmax_state(data, prefix).sink
                assert got is not None
                assert expected_kv is not None
                assert error(got.keys, expected_kv.keys) < 1e-5
                assert error(got.values, expected_kv.values) < 1e-5


@pytest.mark.parametrize(
    ("name", "steps", "changes"),
    [
        ("stream_2step", 2, {}),
        ("stream_nosink", 4, {"sink": False, "window": 8}),  # two chunks, of which the first has 5 latent frames
        ("stream_fullhist", 4, {"sink": False, "window": None}),
    ],
)
def test_stream_variants(
    published: dict[str, Tensor], data: dict[str, Tensor], name: str, steps: int, changes: dict[str, int]
) -> None:
    dit = load(published, replace(CONFIG, **changes))
    got = stream(dit, data, prompt(dit, data), steps)
    assert error(got, data[f"{name}.out.latents"]) < 1e-5


def test_guided_stream(dit: DiT, data: dict[str, Tensor]) -> None:
    tokens = torch.cat([data["stream.in.y_uncond"][:, 0], data["stream.in.y"][:, 0]])
    text = dit.encode_text(tokens, data["stream.in.mask"].repeat(2, 1))
    assert error(stream(dit, data, text, 4, scale=3.0), data["stream_cfg3.out.latents"]) < 1e-5


def test_bfloat16_is_no_further_away_than_the_published_run(
    published: dict[str, Tensor], data: dict[str, Tensor]
) -> None:
    dit = load(published, CONFIG).to(torch.bfloat16)
    got = stream(dit, data, prompt(dit, data), 4)
    assert error(got, data["stream.out.latents"]) < 1.5 * error(
        data["stream_bf16cpu.out.latents"], data["stream.out.latents"]
    )


def test_bidirectional_sampler(dit: DiT, data: dict[str, Tensor]) -> None:
    order = [1, 0]  # negative prompt first
    text = dit.encode_text(data["bidi.in.y"][order, 0], data["bidi.in.mask"][order])
    source = data["bidi.in.cond"][:1].repeat(2, 1, 1, 1, 1)
    denoise = guided(partial(dit, source=source, text=text), scale=6.0)
    got = sample_clip(denoise, data["dpm.in.noise"], dpm_sigmas(6, shift=8.0), dit.init_state(2, GRID))
    assert error(got, data["dpm.out.latents"]) < 1e-4


def load(published: dict[str, Tensor], config: DiTConfig) -> DiT:
    dit = DiT(config)
    dit.load_state_dict(from_published(published, config))
    return dit.eval().requires_grad_(False)


def levels(steps: int) -> tuple[float, ...]:
    return sigmas(two_b().sampler, steps)


def prompt(dit: DiT, data: dict[str, Tensor]) -> TextContext:
    return dit.encode_text(data["stream.in.y"][:, 0], data["stream.in.mask"])


def record_blocks(dit: DiT) -> list[Tensor]:
    """What each block gives out, in order, once the model has run."""
    outputs: list[Tensor] = []
    for block in dit.blocks:
        block.register_forward_hook(lambda _module, _args, result: outputs.append(result[0]))
    return outputs


def stream(dit: DiT, data: dict[str, Tensor], text: TextContext, steps: int, scale: float | None = None) -> Tensor:
    copies = 1 if scale is None else 2
    state, latents = dit.init_state(copies, GRID), []
    for start, end in pairwise(BOUNDS):
        source = data["stream.in.cond"][:, :, start:end].repeat(copies, 1, 1, 1, 1)
        denoise = partial(dit, source=source, text=text)
        chunk, state = sample_chunk(
            denoise if scale is None else guided(denoise, scale),
            data["stream.in.noise"][:, :, start:end],
            levels(steps),
            state,
        )
        latents.append(chunk)
    return torch.cat(latents, dim=2)
