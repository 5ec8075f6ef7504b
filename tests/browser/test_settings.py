"""Seed, steps, reset, and what else makes a new session."""

import pytest

from .conftest import until
from .pages import COLOUR, begin, press, pressed, text

pytestmark = [pytest.mark.browser, pytest.mark.timeout(90)]


@pytest.fixture
def page(live, new_page):
    page = begin(new_page(), live, "?transport=ws")
    page.get_by_text("Settings").click()
    return page


def session_of(live):
    return live.editor.steps[-1][0]


def test_seed_holds_from_a_chunk_on(live, page, picture_of):
    assert text(page, "in-force") == "seed 0, 4 steps, edited at 256\N{MULTIPLICATION SIGN}144"
    page.get_by_label("Seed").fill("31")
    press(page, "Set seed")
    page.locator("#settings-receipt", has_text="in force from chunk").wait_for()
    assert text(page, "in-force").startswith("seed 31,")
    assert session_of(live).generator.initial_seed() == 31
    page.get_by_label("Seed").fill("-1")
    press(page, "Set seed")
    page.wait_for_timeout(300)
    assert session_of(live).generator.initial_seed() == 31
    page.locator("#settings").scroll_into_view_if_needed()
    picture_of(page, "settings")


def test_other_steps_begin_a_new_session_with_all_else_as_it_was(live, page):
    page.get_by_role("button", name="snow").click()
    until(lambda: live.prompts == ["make it snow"])
    page.keyboard.press("b")
    until(lambda: pressed(page, "bypass"))
    page.keyboard.press("b")
    [before] = live.server.hub.sessions
    page.get_by_label("Steps").fill("2")
    press(page, "Set steps")
    until(lambda: session_of(live).steps == 2)
    page.locator("#in-force", has_text="2 steps").wait_for()
    assert live.prompts == ["make it snow"]
    until(lambda: before not in live.server.hub.sessions)
    page.locator("#veil").wait_for(state="hidden")
    page.get_by_label("Steps").fill("")
    press(page, "Set steps")
    until(lambda: session_of(live).steps is None)


def test_reset_and_anchor_tell_the_chunk(live, page):
    press(page, "Reset")
    page.locator("#settings-receipt", has_text="in force from chunk").wait_for()
    page.keyboard.press("a")
    page.locator("#message", has_text="anchor: in force from chunk").wait_for()


def test_settings_chosen_before_a_source_hold_from_the_beginning(live, new_page):
    page = new_page()
    page.goto(live.url + "?transport=ws")
    page.get_by_text("Settings").click()
    page.get_by_label("Seed").fill("5")
    press(page, "Set seed")
    page.get_by_label("Steps").fill("3")
    press(page, "Set steps")
    page.locator("#settings-receipt", has_text="when a session begins").wait_for()
    assert page.get_by_role("button", name="Reset").is_disabled()
    press(page, "Use the camera")
    page.locator("#veil").wait_for(state="hidden")
    assert (session_of(live).seed, session_of(live).steps) == (5, 3)


def test_picture_of_another_shape_begins_a_new_session(live, page, clip):
    [before] = live.server.hub.sessions
    page.locator("#file").set_input_files(clip)
    shape = "canvas => canvas.width / canvas.height"
    until(lambda: abs(page.locator("#edited").evaluate(shape) - 1.5) < 0.1)
    until(lambda: live.server.hub.sessions and before not in live.server.hub.sessions)


def test_picture_of_another_shape_is_cropped_while_recording(live, page, clip):
    [session] = live.server.hub.sessions
    page.keyboard.press("r")
    until(lambda: pressed(page, "record"))
    page.locator("#file").set_input_files(clip)
    until(lambda: page.evaluate(COLOUR, "source")[0] > 150)  # which the camera is not
    before = len(live.editor.steps)
    until(lambda: len(live.editor.steps) > before + 4)
    assert live.server.hub.sessions == (session,)
    assert live.server.hub.state(session) == "running"


def test_one_of_several_cameras_is_chosen(live, page):
    cameras = page.get_by_label("Which camera")
    names = cameras.locator("option").all_inner_texts()
    assert len(names) == 2
    assert cameras.locator("option:checked").inner_text() == names[0]
    cameras.evaluate("cameras => cameras.options[0].dataset.old = true")
    cameras.select_option(label=names[1])
    until(lambda: cameras.locator("[data-old]").count() == 0)  # filled anew by what is in use
    until(lambda: cameras.locator("option:checked").inner_text() == names[1])
    before = len(live.editor.steps)
    until(lambda: len(live.editor.steps) > before + 2)
    page.get_by_role("button", name="Screen", exact=True).click()
    cameras.wait_for(state="hidden")
