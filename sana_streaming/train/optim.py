"""Muon and AdamW for models that train in the precision in which they run: float32 masters of the weights, and their
averages.

The matrices of the blocks can be moved by Muon (Jordan et al. 2024): momentum, made orthogonal by a few Newton-Schulz
steps, so that every direction of a matrix learns at one pace. Its step is scaled to the size of an AdamW step (Liu et
al., arXiv 2502.16982), so that both share one learning rate. Everything else is moved by AdamW.

A step whose gradient is not finite changes no weight. `skipped` counts such steps on the device, so that no step waits
for the answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sana_streaming.train import parallel

MUON_MOMENTUM = 0.95
MUON_RMS = 0.2  # of a Muon step, per unit of learning rate: about that of AdamW


class MasterOptimizer:
    """Owns masters and averages (both float32) of the parameters given by name; the parameters are only written to.

    Parameters keep one gradient tensor each for good, cleared after every step, so that recorded graphs can add to it.
    Those with one axis (scales and biases) go without weight decay. `muon` is a part of a name: two-axis parameters
    whose names hold it are moved by Muon; empty means none.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        betas: Sequence[float] = (0.9, 0.95),
        weight_decay: float = 0.01,
        clip: float = 1.0,
        average: float = 0.999,
        muon: str = "",
    ):
        if not parameters:
            raise ValueError("expected at least one parameter to train, got none")
        self.parameters = dict(parameters)
        self.masters = {
            n: p.detach().float().clone(memory_format=torch.contiguous_format) for n, p in parameters.items()
        }
        self.averages = {n: m.clone() for n, m in self.masters.items()}
        device = next(iter(self.masters.values())).device
        self.gradient = torch.zeros(sum(m.numel() for m in self.masters.values()), device=device)  # of all masters
        parts = self.gradient.split([m.numel() for m in self.masters.values()])
        for master, part in zip(self.masters.values(), parts, strict=True):
            master.grad = part.view_as(master)
        for p in self.parameters.values():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad.zero_()
        self.clip, self.average, self.weight_decay, self.steps = clip, average, weight_decay, 0
        self.muon = [n for n, m in self.masters.items() if muon and muon in n and m.ndim == 2 and min(m.shape) > 16]
        self.momenta = {n: torch.zeros_like(self.masters[n]) for n in self.muon}
        rest = [m for n, m in self.masters.items() if n not in self.momenta]
        groups: list[dict[str, Any]] = [
            {"params": [m for m in rest if m.ndim > 1], "weight_decay": weight_decay},
            {"params": [m for m in rest if m.ndim <= 1], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=0.0, betas=(betas[0], betas[1]), fused=True
        )
        self.skipped = torch.zeros((), device=device)

    @torch.no_grad()
    def step(self, lr: float) -> Tensor:
        """One update from the parameters' gradients (their mean over all processes), which are cleared
        -> the gradient's norm before clipping"""
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]  # all of them
        torch._foreach_copy_([m.grad for m in self.masters.values() if m.grad is not None], gradients)
        torch._foreach_zero_(gradients)
        parallel.mean_(self.gradient)
        norm = torch.linalg.vector_norm(self.gradient)
        bad = 1.0 - torch.isfinite(norm).float()
        self.skipped += bad
        self.gradient.nan_to_num_(0.0, 0.0, 0.0).mul_((self.clip / (norm + 1e-6)).clamp(max=1.0).nan_to_num(0.0))
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.grad_scale, self.adam.found_inf = None, bad  # type: ignore[attr-defined]  # read by the fused kernel
        self.adam.step()
        self._muon_step(lr * (1 - bad))
        self.steps += 1
        decay = min(self.average, self.steps / (self.steps + 10))  # short at first: the start is soon forgotten
        torch._foreach_lerp_(list(self.averages.values()), list(self.masters.values()), 1 - decay)
        self._write(self.masters)
        return norm

    def _muon_step(self, lr: Tensor) -> None:
        """lr is 0 for a step that must change nothing; its gradient is 0 then, and the momentum only fades."""
        for shape in sorted({tuple(self.masters[n].shape) for n in self.muon}):
            names = [n for n in self.muon if self.masters[n].shape == shape]  # all of one shape at once
            masters, momenta = [self.masters[n] for n in names], [self.momenta[n] for n in names]
            gradients: list[Tensor] = [m.grad for m in masters]  # type: ignore[misc]
            torch._foreach_lerp_(momenta, gradients, 1 - MUON_MOMENTUM)
            ahead = torch._foreach_lerp(gradients, momenta, MUON_MOMENTUM)
            update = orthogonal(torch.stack(ahead)) * (MUON_RMS * max(shape) ** 0.5)
            torch._foreach_mul_(masters, 1 - lr * self.weight_decay)
            torch._foreach_sub_(masters, list((update * lr).unbind()))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The parameters hold the averages inside, and the masters again afterwards."""
        self._write(self.averages)
        try:
            yield
        finally:
            self._write(self.masters)

    @torch.no_grad()
    def start_from(self, values: Mapping[str, Tensor]) -> None:
        """Masters and averages from weights by name; moments stay empty. Names that are not trained are ignored."""
        if missing := sorted(self.masters.keys() - values.keys()):
            raise ValueError(f"weights: expected all trained parameters, {len(missing)} are missing: {missing[:5]}")
        for name, master in self.masters.items():
            if values[name].shape != master.shape:
                raise ValueError(f"{name}: expected shape {list(master.shape)}, got {list(values[name].shape)}")
            master.copy_(values[name])
            self.averages[name].copy_(master)
        self._write(self.masters)

    def state_dict(self) -> dict[str, Any]:
        masters = {n: m.detach() for n, m in self.masters.items()}
        adam = self.adam.state_dict()
        return {
            "masters": masters, "averages": self.averages, "momenta": self.momenta, "adam": adam, "steps": self.steps
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start_from(state["masters"])
        for own, kept in ((self.averages, state["averages"]), (self.momenta, state["momenta"])):
            for name, value in kept.items():
                own[name].copy_(value)
        self.adam.load_state_dict(state["adam"])
        self.steps = state["steps"]

    @torch.no_grad()
    def _write(self, values: Mapping[str, Tensor]) -> None:
        torch._foreach_copy_(list(self.parameters.values()), list(values.values()))


def orthogonal(matrices: Tensor) -> Tensor:
    """[n, rows, columns] -> nearly orthogonal ones with the same singular vectors, float32: five quintic Newton-Schulz
    steps, which bring every singular value near 1."""
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (torch.linalg.matrix_norm(x.float(), keepdim=True) + 1e-7).to(x.dtype)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if tall else x).float()
