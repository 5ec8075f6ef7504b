from collections import Counter
from string import Formatter

import pytest

from sana_streaming.config import nano
from sana_streaming.data.backgrounds import BACKGROUNDS
from sana_streaming.data.both import BOTH, PAIRS, orders
from sana_streaming.data.edits import EDITS
from sana_streaming.data.objects import OBJECTS
from sana_streaming.data.phrasings import degree_phrasings, order, paraphrases, plain, reverse_phrasings
from sana_streaming.data.whole import DEGREES, WHOLE
from sana_streaming.data.wordings import WORDINGS
from sana_streaming.text import load_encoder

IN_DEGREES = [(name, degree) for name, edit in WHOLE.items() for degree in edit.choices]


def test_every_look_has_words_and_every_word_a_look():
    assert WHOLE.keys() == WORDINGS.keys()
    assert paraphrases().keys() == EDITS.keys() - BOTH.keys()


@pytest.mark.parametrize("name", (OBJECTS | BACKGROUNDS).keys())
def test_free_phrasings_of_objects_have_the_gaps_of_the_others(name: str):
    edit = EDITS[name]
    gaps = {_gaps(phrase) for phrase in (*edit.phrasings, *edit.held_out) if phrase not in paraphrases()[name]}
    assert len(paraphrases()[name]) >= 20
    assert {_gaps(phrase) for phrase in paraphrases()[name]} <= gaps
    count = Counter(map(plain, (*edit.phrasings, *edit.held_out)))
    assert max(count.values()) == 1


@pytest.mark.parametrize("name", WHOLE)
def test_phrasings_are_many_and_begin_with_the_example(name: str):
    edit = WHOLE[name]
    assert 60 <= len(edit.phrasings) <= 90
    assert len(paraphrases()[name]) >= 30
    assert len(edit.held_out) >= 4
    assert edit.phrasings[0] == edit.example == WORDINGS[name].example
    assert all(phrase == phrase.strip() and "{" not in phrase for phrase in (*edit.phrasings, *edit.held_out))


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_has_six_phrasings_and_one_to_judge_by(name: str):
    assert len(EDITS[name].phrasings) >= 6
    assert len(EDITS[name].held_out) >= 1
    assert not set(EDITS[name].phrasings) & set(EDITS[name].held_out)


@pytest.mark.parametrize(("name", "degree"), IN_DEGREES)
def test_degrees_have_words(name: str, degree: str):
    training, held_out = degree_phrasings(WORDINGS[name], degree)
    assert len(training) >= 12
    assert len(held_out) >= 3


def test_no_phrase_occurs_twice_in_any_edit_degree_or_split():
    phrases = [phrase for edit in WHOLE.values() for phrase in (*edit.phrasings, *edit.held_out)]
    for name, degree in IN_DEGREES:
        training, held_out = degree_phrasings(WORDINGS[name], degree)
        phrases += [*training, *held_out]
    count = Counter(map(plain, phrases))
    assert [phrase for phrase, times in count.items() if times > 1] == []


def test_reverse_instructions_are_no_edits():
    forward = {plain(phrase) for edit in WHOLE.values() for phrase in (*edit.phrasings, *edit.held_out)}
    assert reverse_phrasings(WORDINGS["unchanged"]) == ()
    for name in WHOLE.keys() - {"unchanged"}:
        reverses = reverse_phrasings(WORDINGS[name])
        assert len(set(reverses)) >= 6
        assert not forward & set(map(plain, reverses))


def test_phrasings_vary_in_form():
    phrases = [phrase for edit in WHOLE.values() for phrase in edit.phrasings]
    assert 0.1 < sum(phrase[0].isupper() for phrase in phrases) / len(phrases) < 0.6
    assert 0.1 < sum(phrase[-1] in ".!?" for phrase in phrases) / len(phrases) < 0.6
    text = " ".join(phrases)
    assert all(word in text for word in ("color", "colour", "gray", "grey", "the scene", "the video", "the footage"))


def test_orders_can_be_joined():
    assert order("Make it night.") == "make it night"
    assert order("please make it night") == "make it night"
    assert order("night") is None
    assert order("the video without the dog") is None


@pytest.mark.parametrize("name", sorted({second for pairs in PAIRS.values() for _, second in pairs}))
def test_second_edits_have_orders(name: str):
    assert len(orders(name)) >= 6
    assert len(DEGREES) == 2


def test_the_text_encoder_has_room_for_every_phrase():
    """And for two of them in one instruction, so that nothing which a model is trained on is cut."""
    encoder = load_encoder(nano().text)
    longest = max((len(encoder(phrase)), phrase) for edit in WHOLE.values() for phrase in edit.phrasings)
    assert 2 * longest[0] < nano().text.max_tokens, longest
    filled = [_filled(phrase) for edit in (OBJECTS | BACKGROUNDS).values() for phrase in edit.phrasings]
    longest_filled = max((len(encoder(phrase)), phrase) for phrase in filled)
    assert longest[0] + longest_filled[0] < nano().text.max_tokens, longest_filled


def _filled(phrase: str) -> str:
    """With longer words than any object, place or colour has."""
    return phrase.format_map(dict.fromkeys(_gaps(phrase), "a hippopotamus with a stethoscope"))


def _gaps(phrase: str) -> frozenset[str]:
    return frozenset(name for _, name, _, _ in Formatter().parse(phrase) if name)
