"""The page for those who use no pointer, or a screen reader, or cannot see faint text."""

import pytest

from .conftest import until
from .pages import begin

pytestmark = [pytest.mark.browser, pytest.mark.timeout(90)]

# Controls in view that can be used, as tag and name
CONTROLS = """() => [...document.querySelectorAll("button, input, select, summary, a[href], [tabindex='0']")]
  .filter((element) => !element.disabled && element.checkVisibility({ visibilityProperty: true }))"""
IDENTITY = "(element) => element.tagName + ' ' + (element.id || element.title || element.textContent.trim())"
# Ratio of contrast of all text that stands on a colour, by WCAG 2
FAINT = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if ((colour[3] ?? 1) === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const words = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!words || element.closest(":disabled, figcaption") || !element.checkVisibility()) continue;
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName} ${element.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""


@pytest.fixture(params=[(1280, 800), (390, 844)], ids=["desktop", "portrait"])
def page(live, new_page, request):
    page = begin(new_page(*request.param), live, "?transport=ws")
    page.get_by_text("Settings").click()
    page.locator("#in-force", has_text="seed").wait_for()
    return page


def test_every_control_has_a_name_and_is_reached_by_tab_with_a_visible_ring(page):
    wanted = page.evaluate(f"() => ({CONTROLS})().map({IDENTITY})")
    assert len(wanted) > 25
    for control in page.query_selector_all("button, input, select, summary"):
        if control.is_visible():
            name = control.evaluate("""(element) => element.ariaLabel || element.labels?.[0]?.textContent
              || element.textContent""")
            assert name.strip(), control.evaluate("element => element.outerHTML")
    page.evaluate("document.activeElement.blur(); document.querySelector('h1').tabIndex = -1")
    page.locator("h1").focus()
    reached = []
    for _ in range(len(wanted) + 5):
        page.keyboard.press("Tab")
        active = page.evaluate(f"() => ({IDENTITY})(document.activeElement)")
        if active.startswith("BODY"):
            break
        reached.append(active)
        ring = page.evaluate("""() => { const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
          return outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 }""")
        assert ring, active
        seen = page.evaluate("""() => { const box = document.activeElement.getBoundingClientRect();
          return box.top >= 0 && box.bottom <= innerHeight && box.left >= -1 && box.right <= innerWidth + 1 }""")
        assert seen, active
    assert set(wanted) <= set(reached)


def test_text_can_be_read(page, picture_of):
    assert page.evaluate(FAINT) == []
    picture_of(page, f"settings-{page.viewport_size['width']}")


def test_only_state_and_messages_are_read_out(page):
    regions = page.locator("[aria-live], [role=status], [role=alert], output")
    assert set(regions.evaluate_all("all => all.map(({ id }) => id)")) == {
        "connection",
        "message",
        "receipt",
        "settings-receipt",
    }
    assert page.locator("[aria-live=assertive], [role=alert]").count() == 0
    page.evaluate("""() => {
      window.spoken = 0;
      new MutationObserver((records) => (spoken += records.length))
        .observe(document.getElementById("connection"), { childList: true, characterData: true, subtree: true });
    }""")
    figures = page.locator("#dropped, #fps-in, #glass")
    before = figures.all_inner_texts()
    until(lambda: figures.all_inner_texts() != before)
    page.wait_for_timeout(1500)
    assert page.evaluate("spoken") == 0  # nothing of the state has changed


def test_nothing_moves_for_those_who_asked_for_that(live, new_page):
    page = new_page(reduced_motion="reduce")
    page.goto(live.url)
    moving = """() => [...document.querySelectorAll("*")].map((element) => getComputedStyle(element))
      .filter(({ transitionDuration, animationName }) => parseFloat(transitionDuration) > 0 || animationName !== "none")
      .length"""
    assert page.evaluate(moving) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0
