"""The frame-wise gated delta rule over one chunk, in plain PyTorch: the definition that faster kernels are held to.

Shapes: B batch, N heads, T latent frames of the chunk, S tokens of a frame, K and V head widths.
Paper section 3.1; with rotated keys k^, gate beta and one decay g per frame, every frame f contributes

    P = sum beta k^ k^T,   A = sum beta k^ v^T        (numerator)
    Q = sum beta k k^T,    b = sum beta k             (denominator, keys not rotated)

and the memory of the past moves by  M <- g (M - P M) + A,  z <- g (z - Q z) + b.  Frames of one chunk also see the
later frames of that chunk, through the same rule run backwards from zero, which is never remembered.

Where P has an eigenvalue above 2 the memory grows with every frame. What is read is a ratio, which stays as it is when
M and z are scaled by one number: so they are, before float32 ends.
"""

import torch
from torch import Tensor

EPS = 1e-8
LARGEST = 1e18  # of memory and normalizer, after a chunk: a healthy model never gets there


def gated_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_rotated: Tensor,
    k_rotated: Tensor,
    beta: Tensor,
    decay: Tensor,
    memory: Tensor,
    normalizer: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and their rotated forms [B, N, T, S, K], v [B, N, T, S, V], beta [B, N, T, S] in (0, 1),
    decay [B, N, T] in (0, 1], memory [B, N, K, V] and normalizer [B, N, K] in float32, both before the chunk
    -> o [B, N, T, S, V] in v's dtype, memory and normalizer after the chunk."""
    q, k, q_rotated, k_rotated = q.float(), k.float(), q_rotated.float(), k_rotated.float()
    beta, decay = beta.float()[..., None], decay.float()[..., None, None]

    written = (beta * k_rotated).transpose(-1, -2)  # [B, N, T, K, S]
    erase, write = written @ k_rotated, written @ v.float()  # P and A: [B, N, T, K, K], [B, N, T, K, V]
    weighted = beta * k
    erase_z, write_z = weighted.transpose(-1, -2) @ k, weighted.sum(-2)[..., None]  # Q and b: [..., K, K], [..., K, 1]

    def step(past: Tensor, f: int, erase: Tensor, write: Tensor) -> Tensor:
        return decay[:, :, f] * (past - erase[:, :, f] @ past) + write[:, :, f]

    frames = q.shape[2]
    seen, seen_z = [], []  # what each frame reads: the past and itself, plus the later frames of the chunk
    z = normalizer[..., None]
    for f in range(frames):
        memory, z = step(memory, f, erase, write), step(z, f, erase_z, write_z)
        seen.append(memory)
        seen_z.append(z)
    later, later_z = torch.zeros_like(memory), torch.zeros_like(z)
    for f in reversed(range(1, frames)):
        later, later_z = step(later, f, erase, write), step(later_z, f, erase_z, write_z)
        seen[f - 1] = seen[f - 1] + later
        seen_z[f - 1] = seen_z[f - 1] + later_z

    numerator = q_rotated @ torch.stack(seen, dim=2)
    denominator = q @ torch.stack(seen_z, dim=2)
    largest = torch.maximum(memory.abs().amax(dim=(-2, -1)), z.abs().amax(dim=(-2, -1)))
    scale = (LARGEST / largest.clamp(min=LARGEST))[..., None, None]
    return (numerator / (denominator + EPS)).to(v.dtype), memory * scale, (z * scale)[..., 0]
