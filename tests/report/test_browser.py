"""The page in a real Chromium: opened from disk, asking nothing of any network, drawn, read aloud, dark, on a phone, on paper."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from demur.report.write_report import write_report
from tests.report.chromium import draw_all, until
from tests.report.made_run import make_run

PHONE = {"viewport": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Four checkpoints, two prompt formats: names and labels are long, figures are tall."""
    checkpoints = ("pretrained-base", "instruction-tuned", "preference-tuned", "released-chat-model")
    made = make_run(checkpoints=checkpoints, prompts=("chatml", "user-assistant"), n=4, controls=1, judges=("prefix",))
    return write_report(tmp_path_factory.mktemp("large"), *made)


def test_it_opens_from_disk_and_draws_every_figure(open_page, page, made):
    opened = draw_all(open_page(page))
    names = opened.locator(".plot").evaluate_all("plots => plots.map((plot) => plot.dataset.figure)")
    assert names == [
        "answer", "rates", "added", "ablated", "transfer", "cosines-by-layer", "separation", "norms", "projections", "cosines",
    ]  # fmt: skip
    for name in names:
        plot = opened.locator(f'.plot[data-figure="{name}"]')
        assert plot.locator("svg.main-svg").first.is_visible()
        assert len(plot.get_attribute("aria-label")) > 40
        assert not opened.locator(f"#figure-{name} .drawing").is_visible()
    baselines = [c for c in made[0].cells if c.intervention == "none" and c.judge == "prefix"]
    shown = opened.locator('.plot[data-figure="rates"] .text text').all_text_contents()
    assert sorted(shown) == sorted(f"{100 * cell.rate:.0f} %" for cell in baselines)


@pytest.mark.soak
def test_a_run_without_measured_layers_says_so(open_page, tmp_path):
    opened = open_page(write_report(tmp_path, *make_run(n=3, depth=None)))
    assert "has no measurements by layer" in opened.locator("#where").inner_text()
    assert opened.locator('.plot[data-figure="cosines"]').is_visible()
    assert opened.locator('.plot[data-figure="separation"]').count() == 0


@pytest.mark.soak
def test_a_keyboard_steps_through_a_figure_and_hears_it(open_page, undrawn):
    opened = open_page(undrawn)
    draw_all(opened).locator('.plot[data-figure="rates"]').focus()
    said = []
    for key in ("ArrowRight", "ArrowRight", "End"):
        opened.keyboard.press(key)
        opened.wait_for_timeout(120)
        said.append(opened.locator("#spoken").text_content())
    assert all("of 20 refused" in text for text in said)
    assert [("before" in text, "harmless" in text) for text in said] == [(True, False), (False, False), (False, True)]


@pytest.mark.soak
def test_a_point_leads_to_its_instruction(open_page, undrawn):
    opened = open_page(undrawn)
    box = draw_all(opened).locator('.plot[data-figure="projections"] .scatterlayer path.point').first
    box.scroll_into_view_if_needed()
    box.hover(force=True)
    at = box.bounding_box()
    opened.mouse.click(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    until(opened, "location.hash.includes('instruction=harmful')")
    until(opened, "document.getElementById('browser').open && document.getElementById('status').textContent !== ''")
    assert "(only instruction harmful " in opened.locator("#status").text_content()


@pytest.mark.soak
def test_the_theme_is_chosen_and_kept(open_page, undrawn):
    first = open_page(undrawn)
    bright = first.evaluate("getComputedStyle(document.body).backgroundColor")
    first.locator("#theme").select_option("dark")
    dark = first.evaluate("getComputedStyle(document.body).backgroundColor")
    assert bright != dark
    text = ".plot[data-figure=rates] .xtick text"
    until(first, f"getComputedStyle(document.querySelector('{text}')).fill === 'rgb(230, 229, 224)'")
    again = open_page(undrawn, context=first.context)
    assert again.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    system = open_page(undrawn, color_scheme="dark")
    assert system.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    system.locator("#theme").select_option("light")
    assert system.evaluate("getComputedStyle(document.body).backgroundColor") == bright


@pytest.mark.soak
def test_without_scripts_and_on_paper_the_drawn_figures_stand(open_page, page):
    plain = open_page(page, drawn=False, java_script_enabled=False)
    assert plain.locator("figure .drawing").count() == plain.locator("figure").count() > 5
    assert all(part.is_visible() for part in plain.locator("figure .drawing").all())
    printed = open_page(page)
    printed.emulate_media(media="print")
    assert all(part.is_visible() for part in printed.locator("figure .drawing").all())
    assert not any(part.is_visible() for part in printed.locator(".plot").all())
    assert printed.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.soak
@pytest.mark.parametrize("settings", [PHONE, {}], ids=["phone", "desk"])
def test_nothing_is_wider_than_the_screen_and_no_labels_overlap(open_page, large, settings):
    opened = draw_all(open_page(large, **settings))
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    overlapping = opened.evaluate("""() => [...document.querySelectorAll('.plot')].flatMap((plot) => {
        const found = [];
        for (const kind of ['.xtick > text', '.ytick > text']) {
            const turned = (text) => /rotate\\((?!0)/.test(text.getAttribute('transform') ?? '');
            const boxes = [...plot.querySelectorAll(kind)].filter((text) => !turned(text))
                .map((text) => [text.textContent, text.getBoundingClientRect()]);
            for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
                const [one, a] = boxes[i];
                const [other, b] = boxes[j];
                const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
                const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                if (across > 1 && down > 2) found.push(`${plot.dataset.figure}: ${one} and ${other}`);
            }
        }
        return found;
    })""")
    assert overlapping == []


@pytest.mark.soak
@pytest.mark.parametrize("screen", [{}, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault(open_page, page, theme, screen):
    opened = draw_all(open_page(page, color_scheme=theme, **screen))
    opened.locator("#browser > summary").click()
    for part in ("html", "#browser"):
        if part == "#browser":
            opened.locator("#rows button", has_text="Side by side").first.click()
        # The nodes that a rule finds no fault with are only counted, not described.
        found = Axe().run(opened, context=part, options={"resultTypes": ["violations"]}).response["violations"]
        grave = [(each["id"], each["nodes"][0]["html"][:200]) for each in found if each["impact"] in ("serious", "critical")]
        assert grave == []
