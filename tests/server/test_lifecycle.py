from itertools import product
from typing import get_args

import pytest

from sana_streaming.server.lifecycle import TRANSITIONS, Presence, after, edits, takes
from sana_streaming.server.protocol import State

STATES = get_args(State)


def test_the_life_of_a_session():
    state = "idle"
    seen = [state]
    for event in ("start", "edited", "pause", "resume", "close", "edited", "end"):
        state = after(state, event)
        seen.append(state)
    assert seen == ["idle", "warming", "running", "paused", "running", "draining", "draining", "closed"]


def test_what_does_not_fit_is_refused_in_one_line():
    with pytest.raises(
        ValueError, match="cannot pause a session that is draining: expected one that is idle or warming"
    ):
        after("draining", "pause")


def test_every_session_can_end_and_nothing_comes_after():
    for state in STATES:
        if state != "closed":
            assert after(state, "end") == "closed"
    for event in TRANSITIONS:
        with pytest.raises(ValueError, match="closed"):
            after("closed", event)


def test_no_event_leads_back_from_draining():
    assert {states["draining"] for states in TRANSITIONS.values() if "draining" in states} == {"draining", "closed"}


def test_a_chunk_that_ends_changes_no_pause():
    assert after("paused", "edited") == "paused"


def test_states_are_known():
    for event, state in product(TRANSITIONS, STATES):
        assert TRANSITIONS[event].get(state, "idle") in STATES
    assert [state for state in STATES if takes(state)] == ["idle", "warming", "running"]
    assert [state for state in STATES if edits(state)] == ["warming", "running", "draining"]


def test_who_is_silent_or_gone_is_given_up():
    assert Presence(10.0).overdue(69.9, idle=60, grace=5) is None
    assert Presence(10.0).overdue(70.0, idle=60, grace=5) == "idle for 60 s"
    assert Presence(10.0, lost=80.0).overdue(84.9, idle=60, grace=5) is None  # what counts is the connection
    assert Presence(10.0, lost=80.0).overdue(85.0, idle=60, grace=5) == "no connection for 5 s"
