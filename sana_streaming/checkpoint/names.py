"""The names and shapes that the transformer's tensors have elsewhere: in the published files and in diffusers' style.

Ours differ in two ways besides names: what reads the same input is one matrix (q, k, v and gate of self-attention), and
convolutions over single cells are matrices.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Where another layout keeps our tensors. Names stand for tensors, or for all that begins with them."""

    blocks: str  # what blocks are called
    top: Mapping[str, str]  # ours -> theirs
    block: Mapping[str, str]
    rows: Mapping[str, tuple[str, ...]]  # ours whose rows are several of theirs, one below the other
    tails: Mapping[str, Shape]  # axes that theirs have at the end and ours have not


PUBLISHED = Layout(
    blocks="blocks",
    top={
        "input": "x_embedder.proj",
        "time.mlp.0": "t_embedder.mlp.0",
        "time.mlp.2": "t_embedder.mlp.2",
        "time.modulation": "t_block.1",
        "text.fc1": "y_embedder.y_proj.fc1",
        "text.fc2": "y_embedder.y_proj.fc2",
        "text.norm": "attention_y_norm",
        "output": "final_layer.linear",
        "scale_shift_table": "final_layer.scale_shift_table",
    },
    block={
        "scale_shift_table": "scale_shift_table",
        "attention.q_norm": "attn.q_norm",
        "attention.k_norm": "attn.k_norm",
        "attention.out": "attn.proj",
        "attention.beta": "attn.beta_proj",
        "attention.decay": "attn.gate_proj",
        "attention.A_log": "attn.A_log",
        "attention.dt_bias": "attn.dt_bias",
        "attention.gate_bias": "attn.output_gate.bias",
        "cross_attention.q_norm": "cross_attn.q_norm",
        "cross_attention.k_norm": "cross_attn.k_norm",
        "cross_attention.q": "cross_attn.q_linear",
        "cross_attention.kv": "cross_attn.kv_linear",
        "cross_attention.out": "cross_attn.proj",
        "ffn.up": "mlp.inverted_conv.conv",
        "ffn.depthwise": "mlp.depth_conv.conv",
        "ffn.down": "mlp.point_conv.conv",
        "ffn.temporal": "mlp.t_conv",
    },
    rows={
        "attention.qkvg.weight": ("attn.q.weight", "attn.k.weight", "attn.v.weight", "attn.output_gate.weight"),
    },
    tails={
        "x_embedder.proj.weight": (1, 1, 1),
        "mlp.inverted_conv.conv.weight": (1, 1),
        "mlp.point_conv.conv.weight": (1, 1),
    },
)
DIFFUSERS = Layout(
    blocks="transformer_blocks",
    top={
        "input": "patch_embedding",
        "place.linear": "place_embedding",
        "time.mlp.0": "time_embed.emb.timestep_embedder.linear_1",
        "time.mlp.2": "time_embed.emb.timestep_embedder.linear_2",
        "time.modulation": "time_embed.linear",
        "text.fc1": "caption_projection.linear_1",
        "text.fc2": "caption_projection.linear_2",
        "text.norm": "caption_norm",
        "output": "proj_out",
        "scale_shift_table": "scale_shift_table",
    },
    block={
        "scale_shift_table": "scale_shift_table",
        "attention.q_norm": "attn1.norm_q",
        "attention.k_norm": "attn1.norm_k",
        "attention.out": "attn1.to_out.0",
        "attention.beta": "attn1.to_beta",
        "attention.decay": "attn1.to_decay",
        "attention.A_log": "attn1.A_log",
        "attention.dt_bias": "attn1.dt_bias",
        "attention.gate_bias": "attn1.to_gate.bias",
        "cross_attention.q_norm": "attn2.norm_q",
        "cross_attention.k_norm": "attn2.norm_k",
        "cross_attention.q": "attn2.to_q",
        "cross_attention.out": "attn2.to_out.0",
        "ffn.up": "ff.conv_inverted",
        "ffn.depthwise": "ff.conv_depth",
        "ffn.down": "ff.conv_point",
        "ffn.temporal": "ff.conv_temp",
    },
    rows={
        "attention.qkvg.weight": (
            "attn1.to_q.weight",
            "attn1.to_k.weight",
            "attn1.to_v.weight",
            "attn1.to_gate.weight",
        ),
        "cross_attention.kv.weight": ("attn2.to_k.weight", "attn2.to_v.weight"),
        "cross_attention.kv.bias": ("attn2.to_k.bias", "attn2.to_v.bias"),
    },
    tails={
        "patch_embedding.weight": (1, 1, 1),
        "ff.conv_inverted.weight": (1, 1),
        "ff.conv_point.weight": (1, 1),
    },
)
TEMPORAL = "ffn.temporal.weight"  # [D, 3 D], the taps side by side; elsewhere [D, D, 3, 1]


def gather(
    theirs: Mapping[str, Tensor],
    ours: Mapping[str, Tensor],
    layout: Layout,
    where: Path | str,
    taps: Callable[[str], tuple[Shape, ...]] = lambda _: ((),),
) -> dict[str, Tensor]:
    """Tensors under our names, in the shapes of `ours`, made of those of a layout. `taps`: what a tensor may have as
    its last axes besides, of which only the middle is read. ValueError names the first that is missing or unfit."""
    result = {}
    for key, like in ours.items():
        parts = []
        for name, shape in parts_of(key, tuple(like.shape), layout):
            allowed = [shape + axes for axes in taps(name)]
            if name not in theirs:
                raise ValueError(f"{where}: '{name}' is missing; expected shape {allowed[0]}")
            part = theirs[name]
            if tuple(part.shape) not in allowed:
                raise ValueError(f"{where}: '{name}' has shape {tuple(part.shape)}, expected {allowed[0]}")
            parts.append(part[..., part.shape[-1] // 2] if part.ndim > len(shape) else part)
        result[key] = join(key, tuple(like.shape), parts)
    return result


def scatter(ours: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Our tensors under the names of a layout and in its shapes: undoes `gather`."""
    result: dict[str, Tensor] = {}
    for key, tensor in ours.items():
        names, shapes = zip(*parts_of(key, tuple(tensor.shape), layout), strict=True)
        result |= zip(names, split(key, tensor, shapes), strict=True)
    return result


def parts_of(key: str, shape: Shape, layout: Layout) -> list[tuple[str, Shape]]:
    """What one of our tensors, of that shape, is made of in a layout: names and shapes, in the order of our rows."""
    prefix, name, names = "", key, layout.top
    if key.startswith("blocks."):
        _, index, name = key.split(".", 2)
        prefix, names = f"{layout.blocks}.{index}.", layout.block
    if name == TEMPORAL:
        return [(prefix + _rename(name, names), (shape[0], shape[1] // 3, 3, 1))]
    theirs = layout.rows.get(name) or (_rename(name, names),)
    one = (shape[0] // len(theirs), *shape[1:])
    return [(prefix + their, (*one, *layout.tails.get(their, ()))) for their in theirs]


def join(key: str, shape: Shape, parts: Sequence[Tensor]) -> Tensor:
    """Our tensor, made of its parts."""
    if key.endswith(TEMPORAL):
        return torch.cat(parts[0][..., 0].unbind(-1), dim=1)
    return torch.cat([part.reshape(-1, *shape[1:]) for part in parts]) if len(parts) > 1 else parts[0].reshape(shape)


def split(key: str, tensor: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """The parts of our tensor, in the shapes that they have elsewhere: undoes `join`."""
    if key.endswith(TEMPORAL):
        return [tensor.unflatten(1, (3, -1)).movedim(1, 2)[..., None]]
    return [part.reshape(shape) for part, shape in zip(tensor.chunk(len(shapes)), shapes, strict=True)]


def _rename(name: str, names: Mapping[str, str]) -> str:
    if name in names:
        return names[name]
    stem, _, leaf = name.rpartition(".")
    return f"{names[stem]}.{leaf}"
