"""Several processes that train one model, one for each GPU, started by torchrun. Alone, nothing here does anything."""

import torch
import torch.distributed as dist
from torch import Tensor


def start(device: torch.device) -> torch.device:
    """Join the other processes, if torchrun started some -> the device of this one."""
    if not dist.is_torchelastic_launched():
        return device
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    if device.type != "cuda":
        return device
    own = torch.device("cuda", dist.get_node_local_rank())
    torch.cuda.set_device(own)
    return own


def stop() -> None:
    """Leave together: a process whose peers are gone may fall over on its way out."""
    if dist.is_initialized():
        dist.all_reduce(torch.zeros(1))
        dist.destroy_process_group()


def rank() -> int:
    """Which of the processes this is; the first one, 0, writes files and tells how it goes."""
    return dist.get_rank() if dist.is_initialized() else 0


def mean_(values: Tensor) -> None:
    """Replace values by their mean over all processes."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values /= dist.get_world_size()


def from_first(value: float) -> float:
    """The number that the first process has. What decides when to stop must be the same for all."""
    if not dist.is_initialized():
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(shared, src=0)
    return float(shared)
