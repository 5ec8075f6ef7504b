"""The fused kernel of the feed-forward part against PyTorch, on a GPU: python benchmarks/glu_conv.py"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from sana_streaming.ops.glu_conv import kernel, reference

REPEATS = 50


def milliseconds(function: Callable[[], object]) -> float:
    """Median time of a call on the GPU, by events."""
    for _ in range(5):
        function()
    times = []
    for _ in range(REPEATS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[REPEATS // 2]


def recorded(function: Callable[[], object]) -> Callable[[], None]:
    """The same as a CUDA graph, which takes no time to launch."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--channels", type=int, default=960, help="after the gate")
    args = parser.parse_args()
    torch.manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, device="cuda", dtype=torch.bfloat16)

    wide = 2 * args.channels
    shapes = ((args.pictures, args.side, args.side, wide), (wide, 1, 3, 3), (wide,))
    inputs = [random(*shape).requires_grad_() for shape in shapes]
    gradient = random(args.pictures, args.side, args.side, args.channels)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {args}")
    for name, function in (("PyTorch", reference.glu_conv), ("kernel", kernel.glu_conv)):

        def forward(function: Callable[..., Tensor] = function) -> Tensor:
            return function(*inputs)

        def both(forward: Callable[[], Tensor] = forward) -> None:
            forward().backward(gradient)

        results = [milliseconds(f) for f in (forward, both, recorded(forward), recorded(both))]
        print("{:8} forward {:.3f}, both {:.3f}; in a graph {:.3f}, {:.3f} ms".format(name, *results))


if __name__ == "__main__":
    main()
