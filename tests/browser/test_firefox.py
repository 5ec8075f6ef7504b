"""The page in Firefox: what Chromium shows of it need not hold there."""

import shutil

import pytest

from .conftest import run_server, until
from .firefox import started
from .pages import COLOUR, KEPT, is_negative, moves

pytestmark = [pytest.mark.browser, pytest.mark.timeout(90)]
PROGRAMS = ("firefox-esr", "firefox")
ENTER = "\ue007"
# A peer that is closed meanwhile never answers.
SOUND_COMES = """async () => {
  const peer = kept.peers.findLast(({ signalingState }) => signalingState !== "closed");
  const told = await Promise.race([peer?.getStats(), new Promise((done) => setTimeout(done, 500))]);
  return [...(told?.values() ?? [])]
    .some(({ type, kind, packetsReceived }) => type === "inbound-rtp" && kind === "audio" && packetsReceived > 20);
}"""


@pytest.fixture(scope="module")
def firefox(tmp_path_factory):
    pytest.importorskip("websockets")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(PROGRAMS)} is installed: the page is not tried in Firefox")
    with started(program, tmp_path_factory.mktemp("profile")) as firefox:
        yield firefox


@pytest.fixture
def page(firefox):
    """Whatever its scripts complain of fails the test."""
    page = firefox.page()
    page.add_init_script(KEPT)
    yield page
    wrong = page.wrong
    page.close()
    assert wrong == []


def text(page, id):  # noqa: A002
    return page.evaluate("id => document.getElementById(id).textContent", id)


def pressed(page, id):  # noqa: A002
    return page.evaluate("id => document.getElementById(id).ariaPressed", id) == "true"


def begin(page, live, query=""):
    page.goto(live.url + query)
    page.click("#welcome [data-source=camera]")
    until(lambda: page.evaluate("() => document.getElementById('veil').hidden"))
    return page


def test_complaints_of_a_page_are_heard(firefox, live):
    page = firefox.page()
    page.goto(live.url)
    assert page.wrong == []
    page.evaluate("() => { console.error('wrong'); setTimeout(() => { throw new Error('worse'); }); }")
    until(lambda: len(page.wrong) == 2)
    assert page.wrong[0] == "wrong"
    assert "worse" in page.wrong[1]
    page.close()


@pytest.mark.parametrize(("query", "name"), [("", "WebRTC"), ("?transport=ws", "WebSocket")], ids=["webrtc", "ws"])
def test_camera_comes_back_edited(live, page, picture_of, query, name):
    begin(page, live, query)
    until(lambda: is_negative(page))
    until(lambda: moves(page))
    until(lambda: text(page, "connection") == f"{name}, running")
    until(lambda: text(page, "glass").endswith(" ms"))
    assert 5 < int(text(page, "glass").split()[0]) < 10_000
    picture_of(page, f"firefox-{name}")


def test_instruction_is_applied_at_a_chunk(live, page):
    begin(page, live, "?transport=ws")
    page.evaluate("() => { const field = document.getElementById('prompt'); field.focus(); field.select(); }")
    page.type("make it rain" + ENTER)
    until(lambda: text(page, "receipt").startswith("in force from chunk"))
    assert live.prompts == ["make it rain"]
    page.evaluate("() => document.activeElement.blur()")
    page.type("p")
    until(lambda: pressed(page, "panic"))
    until(lambda: max(page.evaluate(COLOUR, "edited")) < 8)


@pytest.mark.parametrize("query", ["", "?transport=ws"], ids=["webrtc", "ws"])
def test_line_that_is_cut_is_taken_up_again(live, page, query):
    begin(page, live, query)
    [session] = live.server.hub.sessions
    page.evaluate("() => kept.sockets.at(-1).close()")
    until(lambda: page.evaluate("() => kept.sockets.length") == 2)
    until(lambda: text(page, "connection").endswith("running"))
    until(lambda: moves(page))
    assert live.server.hub.sessions == (session,)


def test_server_that_was_started_again(live, page, tmp_path):
    begin(page, live)
    until(lambda: moves(page))
    live.stop()
    again = run_server(tmp_path / "again", int(live.url.rsplit(":", 1)[1].strip("/")))
    try:
        until(lambda: text(page, "connection") == "WebRTC, running")
        until(lambda: moves(page))
        assert again.prompts == ["turn the video into a watercolor painting"]
    finally:
        page.goto("about:blank")
        again.stop()


def test_sound_of_the_microphone_comes_back(live, page):
    begin(page, live)
    page.click("#microphone")
    until(lambda: page.evaluate(SOUND_COMES))
    assert pressed(page, "microphone")
    assert pressed(page, "mute")
    until(lambda: moves(page))


def test_clip_is_looped_with_its_sound_if_the_machine_has_a_loudspeaker(live, page, loud_clip):
    page.goto(live.url)
    page.choose("#file", [loud_clip])
    until(lambda: page.evaluate("() => document.getElementById('veil').hidden"))
    until(lambda: moves(page))
    until(lambda: page.evaluate(SOUND_COMES) or "the clip is silent" in text(page, "message"))
    assert page.evaluate("() => document.getElementById('mute').hidden") == (not page.evaluate(SOUND_COMES))
