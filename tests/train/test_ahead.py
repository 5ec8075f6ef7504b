"""One function at a time, ahead of its use."""

import threading

import pytest
import torch

from sana_streaming.train.ahead import Ahead


def test_results_come_from_another_thread_in_order() -> None:
    ahead: Ahead[tuple[torch.Tensor, ...]] = Ahead(torch.device("cpu"))
    started, go = threading.Event(), threading.Event()

    def work() -> tuple[torch.Tensor, ...]:
        started.set()
        assert go.wait(10)
        return (torch.tensor(threading.get_ident()),)

    ahead.start(work)
    assert started.wait(10)  # it runs while we go on
    go.set()
    assert int(ahead.take()[0]) != threading.get_ident()
    ahead.start(lambda: (torch.ones(2),))
    assert torch.equal(ahead.take()[0], torch.ones(2))


def test_errors_come_to_the_one_who_takes() -> None:
    ahead: Ahead[torch.Tensor] = Ahead(torch.device("cpu"))

    def fail() -> torch.Tensor:
        raise ValueError("no such photo")

    ahead.start(fail)
    with pytest.raises(ValueError, match="no such photo"):
        ahead.take()
