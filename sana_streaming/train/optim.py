"""AdamW for models that train in the precision in which they run: float32 masters of the weights, and their averages.

A step whose loss or gradient is not finite changes no weight. `skipped` counts such steps on the device, so that no
step waits for the answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class MasterAdamW:
    """Owns masters and averages (both float32) of the parameters given by name; the parameters are only written to.

    Parameters with one axis (scales and biases) go without weight decay.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        betas: Sequence[float] = (0.9, 0.95),
        weight_decay: float = 0.01,
        clip: float = 1.0,
        average: float = 0.999,
    ):
        if not parameters:
            raise ValueError("expected at least one parameter to train, got none")
        self.parameters = dict(parameters)
        self.masters = {n: p.detach().float().clone() for n, p in parameters.items()}
        self.averages = {n: m.clone() for n, m in self.masters.items()}
        for master in self.masters.values():
            master.grad = torch.zeros_like(master)
        self.clip, self.average, self.steps = clip, average, 0
        masters = self.masters.values()
        groups: list[dict[str, Any]] = [
            {"params": [m for m in masters if m.ndim > 1], "weight_decay": weight_decay},
            {"params": [m for m in masters if m.ndim <= 1], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=0.0, betas=(betas[0], betas[1]), fused=True
        )
        self.skipped = torch.zeros((), device=next(iter(self.masters.values())).device)

    def step(self, loss: Tensor, lr: float) -> Tensor:
        """One update from the parameters' gradients, which are cleared -> the gradient's norm before clipping"""
        parameters, masters = list(self.parameters.values()), list(self.masters.values())
        grads: list[Tensor] = [m.grad for m in masters]  # type: ignore[misc]
        torch._foreach_copy_(grads, [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters])
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        torch._foreach_mul_(grads, (self.clip / (norm + 1e-6)).clamp(max=1.0))
        bad = 1.0 - (torch.isfinite(norm) & torch.isfinite(loss.detach())).float()
        self.skipped += bad
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.grad_scale, self.adam.found_inf = None, bad  # type: ignore[attr-defined]  # read by the fused kernel
        self.adam.step()
        self.steps += 1
        decay = min(self.average, self.steps / (self.steps + 10))  # short at first: the start is soon forgotten
        torch._foreach_lerp_(list(self.averages.values()), masters, 1 - decay)
        self._write(self.masters)
        for p in parameters:
            p.grad = None
        return norm

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
        return {"masters": masters, "averages": self.averages, "adam": self.adam.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start_from(state["masters"])
        for name, value in state["averages"].items():
            self.averages[name].copy_(value)
        self.adam.load_state_dict(state["adam"])
        self.steps = state["steps"]

    @torch.no_grad()
    def _write(self, values: Mapping[str, Tensor]) -> None:
        torch._foreach_copy_(list(self.parameters.values()), list(values.values()))
