import pytest

from sana_streaming.server.admission import MEASURED, TRIED, Admission, QueueFull


def measured(seconds=1.0, sessions=8, waiting=3):
    admission = Admission(sessions, waiting)
    admission.measure(seconds, 10.0)
    return admission


def test_sessions_begin_while_their_load_together_stays_below_one():
    admission = measured()  # a tenth of a second per unit
    assert admission.ask("a", 4.0) == 0
    assert admission.ask("b", 5.0) == 0
    assert admission.load == pytest.approx(0.9)
    assert admission.ask("c", 1.0) == 1  # would be all of the time


def test_one_may_always_begin():
    admission = measured(seconds=100.0)
    assert admission.ask("a", 4.0) == 0
    assert admission.ask("b", 0.001) == 1


def test_before_anything_is_measured_there_are_as_many_as_places():
    admission = Admission(2, 1)
    assert [admission.ask(name, 1e9) for name in "abc"] == [0, 0, 1]


def test_the_queue_keeps_its_order_and_is_bounded():
    admission = measured()
    assert [admission.ask(name, demand) for name, demand in [("a", 9), ("b", 8), ("c", 0.5), ("d", 0.5)]] == [
        0,
        1,
        2,
        3,
    ]
    with pytest.raises(QueueFull, match="1 sessions run and 3 wait"):
        admission.ask("e", 0.1)
    assert admission.advance() == []  # "c" would fit, but "b" came first
    admission.leave("a")
    assert admission.advance() == ["b", "c", "d"]
    assert not admission.queue


def test_who_leaves_the_queue_makes_room_in_it():
    admission = measured()
    for name in "abc":
        admission.ask(name, 9)
    admission.leave("b")
    assert (admission.position("c"), admission.position("b"), admission.position("a")) == (1, 0, 0)
    assert admission.advance() == []


def test_the_cost_is_that_of_the_latest_chunks_and_no_outlier_counts():
    admission = measured(seconds=50.0)
    for _ in range(MEASURED):
        admission.measure(1.0, 10.0)
    admission.measure(1000.0, 10.0)
    assert admission.cost(1) == 0.1


def test_there_are_never_more_than_places():
    admission = measured(seconds=1e-9, sessions=2)
    assert [admission.ask(name, 1.0) for name in "abc"] == [0, 0, 1]


def tried(**seconds_by_streams):
    """A pass of "one", "two"... streams was measured to take so long, as often as it takes to be judged."""
    admission = Admission(8, 3, together=4)
    for streams, seconds in zip((1, 2, 3, 4), seconds_by_streams.values(), strict=False):
        for _ in range(TRIED):
            admission.measure(seconds, 10.0 * streams, streams)
    return admission


def test_as_many_share_a_pass_as_were_worth_it_and_one_more_is_tried():
    assert tried().together(4) == 1  # nothing is known
    assert tried(one=1.0).together(4) == 2
    assert tried(one=1.0).together(1) == 1
    assert tried(one=1.0, two=1.9).together(4) == 1  # 0.95 for each
    assert tried(one=1.0, two=1.7).together(4) == 3
    assert tried(one=1.0, two=1.7).together(2) == 2
    assert tried(one=1.0, two=1.7, three=3.0).together(4) == 2
    assert tried(one=1.0, two=1.7, three=2.1, four=2.4).together(9) == 4


def test_a_number_is_judged_by_several_passes_and_can_rise_again():
    admission = tried(one=1.0)
    for _ in range(TRIED - 1):
        admission.measure(99.0, 20.0, 2)
        assert admission.together(2) == 2
    admission.measure(99.0, 20.0, 2)
    assert admission.together(2) == 1
    for _ in range(MEASURED):
        admission.measure(60.0, 10.0)  # the machine has become slower
    assert admission.together(2) == 2


def test_room_is_reckoned_for_passes_that_are_shared():
    admission = tried(one=1.0, two=1.2)
    assert (admission.cost(1), admission.cost(2), admission.cost(4)) == pytest.approx((0.1, 0.06, 0.06))
    assert [admission.ask(name, 5.0) for name in "abcd"] == [0, 0, 0, 1]
    assert admission.load == pytest.approx(0.9)
    admission.leave("a")
    assert admission.load == pytest.approx(0.6)
    assert admission.advance() == ["d"]
