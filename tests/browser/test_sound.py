"""Sound goes with the pictures and comes back, and is heard only where it does no harm."""

import re

import pytest

from .conftest import until
from .pages import KEPT, begin, moves, press, pressed

pytestmark = [pytest.mark.browser, pytest.mark.timeout(90)]

# Whether anything can be heard in what comes back, within a second and a half: the synthetic microphone beeps once a
# second.
SOUNDS = """async () => {
  const receiver = kept.peers.at(-1).getReceivers().find(({ track }) => track.kind === "audio");
  if (!receiver) return false;
  const context = new AudioContext(), analyser = context.createAnalyser();
  context.createMediaStreamSource(new MediaStream([receiver.track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  let loud = false;
  for (let i = 0; i < 150 && !loud; i++) {
    await new Promise((done) => setTimeout(done, 10));
    analyser.getFloatTimeDomainData(samples);
    loud = samples.some((sample) => Math.abs(sample) > 0.02);
  }
  await context.close();
  return loud;
}"""
HEARD = """() => [...kept.players].some(({ srcObject, muted, paused }) =>
  srcObject?.getAudioTracks().length && !muted && !paused)"""


@pytest.fixture
def page(new_page):
    page = new_page()
    page.add_init_script(KEPT)
    return page


def test_microphone_is_off_until_it_is_switched_on_and_muted_until_it_is_heard(live, page, picture_of):
    begin(page, live)
    assert not pressed(page, "microphone")
    assert page.locator("#mute").is_hidden()
    assert not page.evaluate("kept.peers[0].getSenders().some(({ track }) => track?.kind === 'audio')")
    press(page, "Microphone")
    until(lambda: page.evaluate(SOUNDS))
    assert pressed(page, "microphone")
    assert pressed(page, "mute")
    assert not page.evaluate(HEARD)
    until(lambda: moves(page))
    page.keyboard.press("m")
    until(lambda: page.evaluate(HEARD))
    page.locator("#message", has_text="headphones").wait_for()
    picture_of(page, "sound")
    page.keyboard.press("m")
    until(lambda: not page.evaluate(HEARD))

    press(page, "Microphone")
    until(lambda: not pressed(page, "microphone"))
    until(lambda: not page.evaluate("kept.peers.at(-1).getSenders().some(({ track }) => track?.kind === 'audio')"))
    assert page.locator("#mute").is_hidden()
    until(lambda: not page.evaluate(SOUNDS))
    peers = page.evaluate("kept.peers.length")
    press(page, "Microphone")
    until(lambda: page.evaluate(SOUNDS))
    assert page.evaluate("kept.peers.length") == peers  # the way is there already


def test_clip_brings_its_sound_which_is_heard(live, page, loud_clip):
    page.goto(live.url)
    with page.expect_file_chooser() as chooser:
        press(page, "Loop a clip")
    chooser.value.set_files(loud_clip)
    page.locator("#veil").wait_for(state="hidden")
    until(lambda: page.evaluate(SOUNDS))
    assert page.locator("#microphone").is_hidden()
    assert page.evaluate(HEARD)
    assert not pressed(page, "mute")
    press(page, re.compile("^Mute"))
    until(lambda: not page.evaluate(HEARD))
    press(page, "Camera")
    until(lambda: not page.evaluate(SOUNDS))
    assert not pressed(page, "microphone")


def test_sound_is_there_again_after_the_line_was_lost(live, page):
    begin(page, live)
    press(page, "Microphone")
    until(lambda: page.evaluate(SOUNDS))
    page.evaluate("kept.sockets.at(-1).close()")
    until(lambda: page.evaluate("kept.sockets.length") == 2)
    page.locator("#connection", has_text="WebRTC, running").wait_for()
    until(lambda: page.evaluate(SOUNDS))


def test_websocket_has_no_sound_and_says_so(live, page, loud_clip):
    begin(page, live, "?transport=ws")
    press(page, "Microphone")
    page.locator("#message", has_text="no sound over the WebSocket").wait_for()
    assert not pressed(page, "microphone")
    page.locator("#file").set_input_files(loud_clip)
    page.locator("#message", has_text="no sound over the WebSocket").wait_for()
    assert page.locator("#mute").is_hidden()


def test_microphone_that_is_not_allowed(live, page):
    page.add_init_script("""navigator.mediaDevices.getUserMedia = new Proxy(navigator.mediaDevices.getUserMedia, {
      apply: (get, self, [wanted]) => wanted.audio ? Promise.reject(new DOMException("no", "NotAllowedError"))
        : Reflect.apply(get, self, [wanted]) })""")
    begin(page, live)
    press(page, "Microphone")
    page.locator("#message", has_text="not allowed to use the microphone").wait_for()
    assert not pressed(page, "microphone")
    until(lambda: moves(page))
