"""What the tests of the page ask of it."""

from .conftest import until

NOTHING = "\N{EN DASH}"  # in place of a number

# Keeps what the page makes, so that a test can break it or listen to it.
KEPT = """{
  window.kept = { sockets: [], peers: [], players: new Set() };
  const Socket = WebSocket, Peer = RTCPeerConnection, play = HTMLMediaElement.prototype.play;
  window.WebSocket = class extends Socket { constructor(...a) { super(...a); kept.sockets.push(this); } };
  window.RTCPeerConnection = class extends Peer {
    constructor(...a) {
      super(...a);
      this.states = [];
      this.addEventListener("connectionstatechange", () => this.states.push(this.connectionState));
      kept.peers.push(this);
    }
  };
  HTMLMediaElement.prototype.play = function () { kept.players.add(this); return play.call(this); };
}"""

# Mean colours of a canvas
COLOUR = """id => {
  const canvas = document.getElementById(id), side = 32;
  const small = new OffscreenCanvas(side, side).getContext("2d");
  small.drawImage(canvas, 0, 0, canvas.width, canvas.height * 0.9, 0, 0, side, side);
  const { data } = small.getImageData(0, 0, side, side), sum = [0, 0, 0];
  for (let i = 0; i < data.length; i++) if (i % 4 < 3) sum[i % 4] += data[i];
  return sum.map(value => value / side / side);
}"""


def begin(page, live, query=""):
    """A page whose camera is edited."""
    page.goto(live.url + query)
    page.get_by_role("button", name="Use the camera").click()
    page.locator("#veil").wait_for(state="hidden")
    return page


def text(page, id):  # noqa: A002
    return page.locator(f"#{id}").inner_text()


def press(page, name):  # or a pattern of it
    page.get_by_role("button", name=name, exact=True).click()


def moves(page):
    """The edited picture changes."""
    read = "() => document.getElementById('edited').toDataURL()"
    before = page.evaluate(read)
    return until(lambda: page.evaluate(read) != before)


def is_negative(page, of="source"):
    source, edited = page.evaluate(COLOUR, of), page.evaluate(COLOUR, "edited")
    return all(abs(255 - a - b) < 25 for a, b in zip(source, edited, strict=True))


def is_black(page):
    return max(page.evaluate(COLOUR, "edited")) < 8


def pressed(page, id):  # noqa: A002
    return page.locator(f"#{id}").get_attribute("aria-pressed") == "true"
