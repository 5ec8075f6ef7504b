"""The page that only shows what is edited, for viewers and for programs that show web pages."""

import numpy as np
import pytest

from sana_streaming.server.whip import watch_name

from .conftest import until
from .pages import COLOUR, begin, is_negative

pytestmark = [pytest.mark.browser, pytest.mark.timeout(90)]

MIDDLE = """video => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [16, 16];
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 16, 16);
  return [...context.getImageData(0, 0, 16, 16).data];
}"""


def shown(page):
    """The mean colour that is in view, or None."""
    video = page.locator("video")
    if not video.evaluate("video => video.videoWidth"):
        return None
    return np.reshape(video.evaluate(MIDDLE), (-1, 4))[:, :3].mean(axis=0)


def test_a_viewer_sees_the_edited_picture(live, new_page, picture_of):
    page = begin(new_page(), live)
    until(lambda: is_negative(page))
    (name,) = map(watch_name, live.server.lives)
    viewer = new_page()
    viewer.goto(f"{live.url}watch.html#watch={name}&clean&sound")
    until(lambda: shown(viewer) is not None)
    until(lambda: abs(shown(viewer) - page.evaluate(COLOUR, "edited")).max() < 30)
    assert viewer.locator("video").evaluate("video => video.controls") is False
    assert viewer.locator("#said").is_hidden()
    first = until(lambda: viewer.locator("video").evaluate("video => video.currentTime"))
    until(lambda: viewer.locator("video").evaluate("video => video.currentTime") > first + 0.5)
    assert "viewers 1.0" in live.server.metrics.text().decode()
    picture_of(viewer, "watch")
    viewer.close()
    until(lambda: "viewers 0.0" in live.server.metrics.text().decode())


def test_a_viewer_waits_for_a_session_and_says_so(live, new_page):
    viewer = new_page()
    viewer.goto(f"{live.url}watch.html#watch=nobody")
    viewer.locator("#said", has_text="there is no session of this id").wait_for()
    nameless = new_page()
    nameless.goto(f"{live.url}watch.html")
    nameless.locator("#said", has_text="expected #watch=NAME").wait_for()
