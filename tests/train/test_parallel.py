"""Two processes that train together do what one does with both batches."""

import subprocess
import sys
from pathlib import Path

import torch

PROGRAM = """
import os, sys
from pathlib import Path
import torch
from torch import nn
from sana_streaming.train import parallel
from sana_streaming.train.loop import LoopConfig, train

class Stage:
    config_type = LoopConfig
    def __init__(self):
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        self.modules = {"m": self.model}
    def backward(self, step, generator):
        for rank in range(2) if sys.argv[2] == "alone" else [parallel.rank()]:
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(10 * step + rank))
            loss = self.model(x).square().mean() / (2 if sys.argv[2] == "alone" else 1)
            loss.backward()
        return {"loss": loss.detach()}
    def measure(self): pass
    def validate(self): return {"rank": float(parallel.rank())}, None
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

parallel.start(torch.device("cpu"))
stage = Stage()
train(stage, Path(sys.argv[1]), LoopConfig(lr=0.1, warmup_steps=1, closing=0), device=torch.device("cpu"), steps=5)
torch.save(stage.model.state_dict(), Path(sys.argv[1]) / f"weights-{parallel.rank()}.pt")
parallel.stop()
sys.stdout.flush()
os._exit(0)  # gloo's threads may abort an interpreter that ends by itself, after all is done
"""


def run(tmp_path: Path, how: str) -> list[dict[str, torch.Tensor]]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    out = tmp_path / how
    out.mkdir()
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *(together if how == "together" else []), str(program), str(out), how]
    subprocess.run(command, check=True, capture_output=True, timeout=100, cwd=Path(__file__).parents[2])
    assert len((out / "log.jsonl").read_text().splitlines()) >= 2
    assert len(list(out.glob("ema-*"))) == 1
    return [torch.load(path, weights_only=True) for path in sorted(out.glob("weights-*.pt"))]


def test_two_processes_are_one_with_both_batches(tmp_path: Path) -> None:
    first, second = run(tmp_path, "together")
    (alone,) = run(tmp_path, "alone")
    for name, value in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, atol=1e-6, rtol=1e-5)
