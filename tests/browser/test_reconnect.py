"""The line breaks in one way or another, and the page comes back by itself."""

import pytest

from sana_streaming.server import websocket

from .conftest import run_server, until
from .pages import KEPT, begin, is_black, is_negative, moves, pressed, text

pytestmark = [pytest.mark.browser, pytest.mark.timeout(90)]


@pytest.fixture
def peers(monkeypatch):
    """The server's ends of WebRTC."""
    made = []

    class Kept(websocket.Peer):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(websocket, "Peer", Kept)
    return made


@pytest.fixture
def kept_page(new_page):
    page = new_page()
    page.add_init_script(KEPT)
    return page


def cut(live, peer):
    """Nothing goes through any more, and nobody is told."""
    for transceiver in peer.pc.getTransceivers():
        for protocol in transceiver.sender.transport.transport._connection._protocols:
            live.loop.call_soon_threadsafe(protocol.transport.close)


@pytest.mark.parametrize("query", ["", "?transport=ws"], ids=["webrtc", "ws"])
def test_instruction_given_while_the_line_is_cut_holds_afterwards(live, kept_page, query):
    page = begin(kept_page, live, query)
    [session] = live.server.hub.sessions
    page.evaluate("kept.sockets.at(-1).close()")
    page.locator("#connection", has_text="reconnecting").wait_for()
    page.get_by_label("Instruction").fill("make it snow")
    page.get_by_label("Instruction").press("Enter")
    until(lambda: live.prompts == ["make it snow"])
    assert live.server.hub.sessions == (session,)
    page.locator("#connection", has_text="running").wait_for()
    until(lambda: is_negative(page))


def test_way_of_the_pictures_that_is_lost_is_found_again(live, kept_page, peers):
    page = begin(kept_page, live)
    until(lambda: moves(page))
    [session] = live.server.hub.sessions
    cut(live, peers[0])
    until(lambda: page.evaluate("kept.peers.length") == 2)
    assert "failed" not in page.evaluate("kept.peers[0].states")  # which takes the browser a quarter of a minute
    page.locator("#connection", has_text="WebRTC, running").wait_for()
    until(lambda: moves(page))
    assert live.server.hub.sessions == (session,)
    assert page.evaluate("kept.sockets.length") == 1


def test_connection_that_the_server_closes_is_made_again(live, kept_page, peers):
    page = begin(kept_page, live)
    until(lambda: moves(page))
    live.run(peers[0].pc.close())
    until(lambda: page.evaluate("kept.peers.length") == 2)
    page.locator("#connection", has_text="WebRTC, running").wait_for()
    until(lambda: moves(page))


def test_line_that_falls_silent_is_given_up(live, kept_page):
    page = begin(kept_page, live, "?transport=ws")
    [session] = live.server.hub.sessions
    page.evaluate("kept.sockets.at(-1).onmessage = null")
    until(lambda: page.evaluate("kept.sockets.length") == 2)
    page.locator("#connection", has_text="running").wait_for()
    until(lambda: moves(page))
    assert live.server.hub.sessions == (session,)


@pytest.mark.parametrize("query", ["", "?transport=ws"], ids=["webrtc", "ws"])
def test_server_that_was_started_again_gets_prompt_and_settings(live, new_page, tmp_path, query):
    page = begin(new_page(), live, query)
    page.get_by_role("button", name="snow").click()
    page.locator("#receipt", has_text="in force from chunk").wait_for()
    page.get_by_text("Settings").click()
    page.get_by_label("Seed").fill("7")
    page.get_by_role("button", name="Set seed").click()
    page.locator("#in-force", has_text="seed 7").wait_for()
    page.keyboard.press("p")
    until(lambda: is_black(page))
    live.stop()
    port = int(live.url.rsplit(":", 1)[1].strip("/"))
    again = run_server(tmp_path / "again", port)
    try:
        until(lambda: again.prompts == ["make it snow"])
        until(lambda: pressed(page, "panic"))
        assert text(page, "in-force").startswith("seed 7,")
        assert again.editor.steps[-1][0].seed == 7
        page.keyboard.press("p")
        until(lambda: is_negative(page))
    finally:
        again.stop()


def test_session_that_was_paused_is_paused_when_it_is_replaced(live, new_page, tmp_path):
    page = begin(new_page(), live, "?transport=ws")
    page.keyboard.press("Space")
    until(lambda: pressed(page, "pause"))
    live.stop()
    port = int(live.url.rsplit(":", 1)[1].strip("/"))
    again = run_server(tmp_path / "again", port)
    try:
        page.locator("#connection", has_text="WebSocket, paused").wait_for()
        assert again.editor.steps == []
    finally:
        again.stop()
