import pytest
import torch
from torch import Generator

from sana_streaming.data import whole
from sana_streaming.data.bank import Bank
from sana_streaming.data.both import BOTH, HELD_OUT, LONGEST, PAIRS, SINGLE, after
from sana_streaming.data.edits import EDITS
from sana_streaming.data.whole import WHOLE


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def test_pairs_are_of_known_edits_and_no_pair_occurs_twice():
    pairs = [pair for kind in PAIRS.values() for pair in kind]
    assert len(set(pairs)) == len(pairs)
    assert all(first in SINGLE and second in WHOLE for first, second in pairs)
    assert PAIRS.keys() == BOTH.keys()


@pytest.mark.parametrize(
    ("first", "second"), [("remove", "night"), ("background", "watercolor"), ("fog", "grayscale"), ("night", "snow")]
)
def test_both_is_one_after_the_other(first: str, second: str, bank: Bank):
    size = (bank, 2, 3, 64, 96)
    both = after(first, second, *size, seeded(4), False)
    one = SINGLE[first].render(*size, seeded(4), False)
    torch.testing.assert_close(both.source, one.source)
    middle = one.target
    if first in WHOLE:
        plain = WHOLE[first].apply
        assert plain is not None
        middle = plain(one.source, seeded())
    edit = WHOLE[second].apply
    assert edit is not None
    torch.testing.assert_close(both.target, edit(middle, seeded()), atol=1e-5, rtol=0)
    assert both.region.min() == 1
    assert all(second in subject for subject in both.subjects)
    assert both.moved is None


def test_the_first_of_two_looks_is_judged_without_large_foregrounds(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    """As every other look is."""
    asked = []

    def scenes(bank: Bank, clips: int, frames: int, height: int, width: int, *_: Generator, vary: bool):
        asked.append(vary)
        return torch.ones(clips, frames, 3, height, width), None

    monkeypatch.setattr(whole, "foreground_scenes", scenes)
    monkeypatch.setattr(whole, "FOREGROUND", 1.0)
    after("fog", "grayscale", bank, 2, 1, 32, 32, seeded(), True)
    assert asked == []
    after("fog", "grayscale", bank, 2, 1, 32, 32, seeded(), False)
    assert asked == [True]


def test_what_is_moved_is_seen_by_the_look_after_it(bank: Bank):
    size = (bank, 2, 3, 64, 96)
    one, both = SINGLE["replace"].render(*size, seeded(4), False), after("replace", "night", *size, seeded(4), False)
    night = WHOLE["night"].apply
    assert one.moved is not None
    assert both.moved is not None
    assert night is not None
    torch.testing.assert_close(both.moved(4, 2), night(one.moved(4, 2), seeded()), atol=1e-5, rtol=0)


def test_what_depends_on_the_past_is_weather():
    for name, pairs in PAIRS.items():
        falls = {second for _, second in pairs} & {"snow", "rain"} or {first for first, _ in pairs} & {"snow", "rain"}
        assert (EDITS[name].kind == "weather") == bool(falls)


@pytest.mark.parametrize("name", BOTH)
def test_instructions_name_both(name: str, bank: Bank):
    rng = seeded()
    for held_out in (False, True):
        for _ in range(20):
            for phrase in BOTH[name].render(bank, 2, 1, 32, 32, rng, held_out).phrases:
                assert len(phrase.split()) <= LONGEST + 4
                assert any(word in phrase for word in (" and ", "then", "also", "Also", "too"))
                own = (". Also " in phrase, phrase.endswith(" too"))
                assert any(own) == held_out
    assert len(HELD_OUT) == len(own)
