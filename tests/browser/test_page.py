"""The page in a real browser, from the camera to the edited picture."""

import re

import pytest

from .conftest import run_server, until
from .pages import COLOUR, NOTHING, begin, is_black, is_negative, moves, pressed, text

pytestmark = [pytest.mark.browser, pytest.mark.timeout(90)]

# The last row of the edited picture in its middle, beside one above it: red, green and blue of both
EDGE = """() => {
  const canvas = document.getElementById("edited"), context = canvas.getContext("2d");
  const row = (y) => [...context.getImageData(canvas.width / 2, y, 1, 1).data];
  const [inner, last] = [row(canvas.height - 8), row(canvas.height - 1)];
  return [0, 1, 2].map((i) => [inner[i], last[i]]);
}"""


@pytest.mark.parametrize(("query", "name"), [("", "WebRTC"), ("?transport=ws", "WebSocket")], ids=["webrtc", "ws"])
def test_camera_comes_back_edited(live, new_page, picture_of, query, name):
    page = begin(new_page(), live, query)
    until(lambda: is_negative(page))
    page.locator("#connection", has_text=f"{name}, running").wait_for()
    until(lambda: re.fullmatch(r"\d+ ms", text(page, "glass")))
    assert 5 < int(text(page, "glass").split()[0]) < 10_000
    until(lambda: text(page, "fps-out") not in (NOTHING, "0.0"))
    for value in ("fps-in", "factor", "chunk-p95", "dropped", "repeated", "memory"):
        until(lambda: text(page, value) != NOTHING)  # noqa: B023  # asked before the next one
    until(lambda: max(abs(inner - last) for inner, last in page.evaluate(EDGE)) < 16)  # the first pictures are coarse
    picture_of(page, f"side-{name}")


def test_without_a_way_for_webrtc_the_websocket_takes_over(live, new_page):
    """And gives way again when the network says that it is another one."""
    page = new_page()
    page.add_init_script("""{
      const { setRemoteDescription: set, addIceCandidate: add } = RTCPeerConnection.prototype;
      window.blocked = true;
      RTCPeerConnection.prototype.addIceCandidate = async function (c) { if (!blocked) await add.call(this, c); };
      RTCPeerConnection.prototype.setRemoteDescription = function ({ type, sdp }) {
        const none = (lines) => lines.replace(/a=candidate.*\\r\\n/g, "")
          .replace(/a=ice-pwd:.*/g, "a=ice-pwd:aaaaaaaaaaaaaaaaaaaaaaaa");
        return set.call(this, { type, sdp: blocked ? none(sdp) : sdp });
      };
    }""")
    begin(page, live)
    until(lambda: is_negative(page))
    page.locator("#connection", has_text="WebSocket, running").wait_for()
    page.evaluate("() => { blocked = false; dispatchEvent(new Event('online')); }")
    page.locator("#connection", has_text="WebRTC, running").wait_for()
    until(lambda: moves(page))


def test_prompt_is_accepted_then_applied_at_a_chunk(live, new_page, picture_of):
    page = begin(new_page(), live, "?transport=ws")
    page.evaluate("""() => {
      window.receipts = [];
      new MutationObserver(() => receipts.push(document.getElementById("receipt").textContent))
        .observe(document.getElementById("receipt"), { childList: true });
    }""")
    field = page.get_by_label("Instruction")
    field.fill("make it night")
    assert text(page, "remaining") == f"{500 - len('make it night')} characters left"
    field.press("Enter")
    page.locator("#receipt", has_text="in force from chunk").wait_for()
    told = page.evaluate("receipts")
    assert "accepted, waits for its chunk" in told
    assert told.index("accepted, waits for its chunk") < len(told) - 1
    chunk = int(re.search(r"chunk (\d+), frame \d+", text(page, "receipt")).group(1))
    assert live.prompts == ["make it night"]
    assert 0 < chunk < len(live.editor.steps)
    assert pressed_chips(page) == ["make it night"]
    field.fill("")
    assert field.evaluate("field => field.maxLength") == 500
    picture_of(page, "prompt")


def pressed_chips(page):
    return page.eval_on_selector_all("#chips [aria-pressed=true]", "chips => chips.map(chip => chip.title)")


def test_keys_work_but_not_while_typing(live, new_page):
    page = begin(new_page(), live, "?transport=ws")
    page.keyboard.press("2")
    until(lambda: live.prompts == ["make it night"])
    assert page.get_by_label("Instruction").input_value() == "make it night"
    stage = page.locator("#stage")
    page.keyboard.press("c")
    assert stage.get_attribute("data-view") == "slider"
    page.keyboard.press("c")
    assert stage.get_attribute("data-view") == "side"
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("p")  # not with a dialog open
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()

    field = page.get_by_label("Instruction")
    field.fill("")
    field.focus()
    page.keyboard.type("1 cbp a?r f")
    assert field.input_value() == "1 cbp a?r f"
    page.wait_for_timeout(300)
    assert stage.get_attribute("data-view") == "side"
    assert not any(pressed(page, name) for name in ("pause", "bypass", "panic", "record"))
    assert not page.get_by_role("dialog").is_visible()
    assert live.prompts == ["make it night"]


def test_pause_bypass_and_panic(live, new_page, picture_of):
    page = begin(new_page(), live, "?transport=ws")
    until(lambda: is_negative(page))
    page.keyboard.press("p")
    until(lambda: is_black(page))
    assert pressed(page, "panic")
    picture_of(page, "panic")
    page.keyboard.press("p")
    until(lambda: is_negative(page))

    page.keyboard.press("b")
    until(lambda: pressed(page, "bypass"))
    until(lambda: max(abs(a - b) for a, b in zip(*(page.evaluate(COLOUR, c) for c in ("source", "edited")))) < 25)  # noqa: B905
    page.keyboard.press("b")
    until(lambda: is_negative(page))

    page.keyboard.press("Space")
    page.locator("#connection", has_text="paused").wait_for()
    assert text(page, "pause").startswith("Go on")
    before = len(live.editor.steps)
    page.wait_for_timeout(500)
    assert len(live.editor.steps) <= before + 1  # the chunk that was at work
    page.keyboard.press("Space")
    page.locator("#connection", has_text="running").wait_for()
    until(lambda: len(live.editor.steps) > before + 2)


def test_slider_moves(live, new_page, picture_of):
    page = begin(new_page(), live, "?transport=ws")
    page.get_by_role("button", name="Slider").click()
    box = page.locator("#slider").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    assert abs(float(page.locator("#slider").input_value()) - 25) < 2
    edge = page.locator("#edited-pane").evaluate("pane => getComputedStyle(pane).clipPath")
    left = float(re.fullmatch(r"inset\(0px 0px 0px ([\d.]+)%\)", edge).group(1))
    assert abs(left - 25) < 2
    until(lambda: is_negative(page, "before"))  # the same moment on both sides
    page.locator("#slider").focus()
    page.keyboard.press("ArrowRight")
    assert float(page.locator("#slider").input_value()) > left
    picture_of(page, "slider")


def test_session_that_ended_can_be_begun_again(live, new_page):
    page = begin(new_page(), live, "?transport=ws")
    [session] = live.server.hub.sessions
    live.server.hub.close(session, "idle for 60 s")
    page.locator("#veil", has_text="The session ended: idle for 60 s").wait_for()
    assert page.locator("#pause").is_disabled()
    page.get_by_label("Instruction").fill("make it rain")
    page.get_by_role("button", name="Apply").click()
    until(lambda: live.prompts == ["make it rain"])
    page.locator("#veil").wait_for(state="hidden")
    assert session not in live.server.hub.sessions


def test_page_that_is_left_ends_its_session(live, new_page):
    page = begin(new_page(), live, "?transport=ws")
    [session] = live.server.hub.sessions
    page.goto("about:blank")
    until(lambda: session not in live.server.hub.sessions or live.server.hub.state(session) == "draining")


def test_who_finds_no_room_waits_in_view_of_the_queue(new_page, tmp_path, picture_of):
    running = run_server(tmp_path, sessions=1)
    try:
        first = begin(new_page(), running, "?transport=ws")
        second = new_page()
        second.goto(running.url + "?transport=ws")
        second.get_by_role("button", name="Use the camera").click()
        second.locator("#veil", has_text="place 1 in the queue").wait_for()
        second.locator("#connection", has_text="waiting, place 1").wait_for()
        assert second.get_by_role("button", name="Pause").is_disabled()
        until(lambda: max(second.evaluate(COLOUR, "source")) > 50)  # what will be edited is seen meanwhile
        picture_of(second, "queue")
        first.goto("about:blank")
        second.locator("#veil").wait_for(state="hidden")
        until(lambda: is_negative(second))
    finally:
        running.stop()


def test_record_and_download(live, new_page, picture_of):
    page = begin(new_page(), live, "?transport=ws")
    page.keyboard.press("r")
    until(lambda: pressed(page, "record"))
    before = len(live.editor.steps)
    until(lambda: len(live.editor.steps) > before + 3)
    page.keyboard.press("r")
    with page.expect_download() as download:
        page.get_by_role("button", name="edited.mp4").click()
    assert download.value.suggested_filename == "edited.mp4"
    assert download.value.path().stat().st_size > 1000
    names = page.locator("#recordings button").all_inner_texts()
    assert {"edited.mp4", "session.jsonl", "source.mkv"} <= set(names)
    picture_of(page, "recorded")


def test_a_clip_is_looped_and_takes_the_place_of_the_camera(live, new_page, clip):
    page = begin(new_page(), live, "?transport=ws")
    assert "mirrored" in page.locator("#stage").get_attribute("class")
    page.locator("#file").set_input_files(clip)
    until(lambda: all(abs(a - b) < 25 for a, b in zip(page.evaluate(COLOUR, "source"), (200, 60, 30), strict=True)))
    until(lambda: is_negative(page))
    assert "mirrored" not in page.locator("#stage").get_attribute("class")
    page.wait_for_timeout(1500)  # longer than the clip
    before = len(live.editor.steps)
    until(lambda: len(live.editor.steps) > before + 2)
    page.locator("#file").set_input_files({"name": "x.mp4", "mimeType": "video/mp4", "buffer": b"no video"})
    page.locator("#message", has_text="cannot play").wait_for()


def test_a_screen_is_edited(live, new_page):
    page = new_page()
    page.goto(live.url + "?transport=ws")
    page.get_by_role("button", name="Share a screen").click()
    page.locator("#veil").wait_for(state="hidden")
    until(lambda: is_negative(page))


def test_token_comes_from_the_fragment(new_page, tmp_path):
    running = run_server(tmp_path, token="a token nobody guesses")
    try:
        begin(new_page(), running, "?transport=ws#token=a%20token%20nobody%20guesses")
        page = new_page()
        page.goto(running.url + "?transport=ws#token=wrong")
        page.get_by_role("button", name="Use the camera").click()
        page.locator("#message", has_text="token").wait_for()
        assert text(page, "connection") == "not connected"
    finally:
        running.stop()


@pytest.mark.parametrize("view", ["Side by side", "Slider", "Edited"])
def test_portrait(live, new_page, picture_of, view):
    page = begin(new_page(390, 844, has_touch=True), live, "?transport=ws")
    page.get_by_role("button", name=view, exact=True).click()
    until(lambda: text(page, "fps-out") != NOTHING)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    status = page.locator("#status").bounding_box()
    assert status["y"] + status["height"] <= 844
    field = page.get_by_label("Instruction").bounding_box()
    assert field["y"] + field["height"] <= page.locator("footer").bounding_box()["y"]
    picture_of(page, f"portrait-{view.split()[0].lower()}")


def test_full_screen_and_picture_in_picture(live, new_page):
    page = begin(new_page(), live, "?transport=ws")
    page.keyboard.press("f")
    until(lambda: page.evaluate("document.fullscreenElement?.id") == "edited-pane")
    page.keyboard.press("f")
    until(lambda: page.evaluate("document.fullscreenElement") is None)
    page.get_by_role("button", name="Picture in picture").click()
    until(lambda: page.evaluate("document.pictureInPictureElement?.id") == "pip-video")


def test_before_a_source_is_chosen(live, new_page, picture_of):
    page = new_page()
    page.goto(live.url)
    page.keyboard.press("Space")
    page.keyboard.press("1")
    assert page.get_by_role("button", name="Pause").is_disabled()
    picture_of(page, "welcome")
    page.set_viewport_size({"width": 390, "height": 844})
    picture_of(page, "welcome-portrait")


def test_screen_stays_on_while_there_is_a_picture(live, new_page):
    page = new_page()
    page.add_init_script("""navigator.wakeLock.request = async () => (window.locks = (window.locks ?? 0) + 1,
      { release: async () => { locks--; } });""")
    page.goto(live.url + "?transport=ws")
    assert page.evaluate("window.locks") is None
    page.get_by_role("button", name="Use the camera").click()
    until(lambda: page.evaluate("window.locks") == 1)
    page.get_by_role("button", name="Screen", exact=True).click()
    page.locator("[data-source=screen][aria-pressed=true]").first.wait_for()
    until(lambda: page.evaluate("window.locks") == 1)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    until(lambda: page.evaluate("window.locks") == 1)
