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


def test_after_waiting_nothing_runs_and_the_result_is_still_there() -> None:
    ahead: Ahead[torch.Tensor] = Ahead(torch.device("cpu"))
    ahead.wait()  # nothing was started
    go, ended = threading.Event(), threading.Event()

    def work() -> torch.Tensor:
        assert go.wait(10)
        ended.set()
        return torch.ones(3)

    ahead.start(work)
    threading.Timer(0.05, go.set).start()
    ahead.wait()
    assert ended.is_set()
    assert torch.equal(ahead.take(), torch.ones(3))


def test_errors_come_to_the_one_who_takes() -> None:
    ahead: Ahead[torch.Tensor] = Ahead(torch.device("cpu"))

    def fail() -> torch.Tensor:
        raise ValueError("no such photo")

    ahead.start(fail)
    with pytest.raises(ValueError, match="no such photo"):
        ahead.take()
