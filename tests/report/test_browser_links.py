"""The address of the page in a real Chromium, and what the first screen shows: a link opens the view that it names."""

from urllib.parse import parse_qs, urlencode

import pytest

from demur.report.write_report import write_report
from tests.report.chromium import until
from tests.report.made_run import make_run

PHONE = {"viewport": {"width": 390, "height": 844}}
ON_SCREEN = """(selector) => {
    const { top, bottom, left, right } = document.querySelector(selector).getBoundingClientRect();
    return top >= 0 && left >= 0 && bottom <= innerHeight && right <= innerWidth;
}"""


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A run with a judge of seven labels and several coefficients."""
    made = make_run(n=6, judges=("prefix", "taxonomy"), coefficients=(0.5, 2.0), controls=1)
    return made, write_report(tmp_path_factory.mktemp("labelled"), *made)


def parts(opened):
    return {key: value[0] for key, value in parse_qs(opened.evaluate("location.hash.slice(1)")).items()}


def test_a_link_shows_and_marks_one_completion(open_page, undrawn, made):
    _, completions = made
    (row,) = completions[
        (completions["target"] == "after") & (completions["intervention"] == "ablate") & (completions["source"] == "before")
        & (completions["instructions"] == "harmful") & (completions["index"] == 4)
    ].to_dict("records")  # fmt: skip
    link = {"target": "after", "edit": "ablate before", "instruction": "harmful 4"}
    opened = open_page(undrawn, urlencode(link))
    until(opened, "document.querySelector('#rows .chosen') !== null")
    chosen = opened.locator("#rows .chosen")
    assert chosen.count() == 1
    text = row["completion"]
    assert chosen.locator(".text").text_content() == (text if text.strip() else "empty" if text == "" else "only white space")
    assert chosen.locator("h4").text_content().startswith("before ablated")
    # It is on the screen, and stays there while figures are drawn.
    until(opened, f"({ON_SCREEN})('#rows .chosen')")
    assert opened.locator("#by-link").is_visible()
    assert not opened.evaluate('Object.values(localStorage).includes("yes")')
    # The link of the card leads to the same view.
    assert parse_qs(chosen.get_by_role("link", name="Link to").get_attribute("href")[1:]) == {
        key: [value] for key, value in link.items()
    }
    opened.locator("#hide-completions").click()
    until(opened, "!document.getElementById('browser').open")


@pytest.mark.soak
def test_every_completion_has_a_link_that_finds_it(open_page, undrawn):
    opened = open_page(undrawn, urlencode({"target": "after", "edit": "none", "instruction": "harmless 2"}))
    until(opened, "document.querySelectorAll('#rows .card').length > 1")
    links = opened.locator("#rows .card .acts a").evaluate_all("all => all.map((link) => link.getAttribute('href'))")
    assert len(set(links)) == len(links) == opened.locator("#rows .card").count()
    heads = opened.locator("#rows .card h4").all_text_contents()
    for link, head in list(zip(links, heads, strict=True))[::3]:
        opened.evaluate("link => { location.hash = link; }", link)
        until(opened, f"document.querySelector('#rows .chosen a').getAttribute('href') === {link!r}")
        assert opened.locator("#rows .chosen h4").text_content() == head


def test_a_click_on_a_bar_selects_its_cell(open_page, undrawn, made):
    summary, _ = made
    opened = open_page(undrawn)
    bars = opened.locator('.plot[data-figure="answer"] .barlayer .point path')
    bars.last.wait_for(state="attached")
    # A bar of a rate near 0 is too small to be hit.
    box = max((one.bounding_box() for one in bars.all()), key=lambda found: found["width"])
    opened.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    until(opened, "location.hash.includes('edit=')")
    until(opened, "document.getElementById('browser').open && document.getElementById('status').textContent !== ''")
    found = parts(opened)
    assert set(found) == {"checkpoint", "instructions", "edit"} or set(found) == {"target", "instructions", "edit"}
    (n,) = {cell.n for cell in summary.cells}
    assert opened.locator("#status").text_content().startswith(f"{n} of ")


@pytest.mark.soak
def test_folds_and_section_are_in_the_address(open_page, undrawn):
    opened = open_page(undrawn, "verdict=refusal")
    until(opened, "document.getElementById('status').textContent !== ''")
    opened.locator("#results > summary").click()
    until(opened, "location.hash.includes('open=results')")
    opened.get_by_role("navigation", name="Contents").get_by_role("link", name="Rates").click()
    until(opened, "location.hash.includes('at=rates')")
    assert parts(opened) == {"verdict": "refusal", "open": "results", "at": "rates"}
    again = open_page(undrawn, opened.evaluate("location.hash.slice(1)"))
    until(again, "document.getElementById('results').open && document.getElementById('status').textContent !== ''")
    assert again.locator("#facet-verdict").input_value() == "refusal"
    until(again, "Math.abs(document.getElementById('rates').getBoundingClientRect().top) < 120")
    # A link to something inside a fold opens the fold.
    inside = open_page(undrawn, "results")
    until(inside, "document.getElementById('results').open")


def test_the_first_screen_has_an_answer_and_its_figure(open_page, undrawn):
    opened = open_page(undrawn, viewport={"width": 1280, "height": 800})
    until(opened, "document.querySelector('.plot[data-figure=answer] svg.main-svg') !== null")
    assert opened.evaluate(ON_SCREEN, ".answers li:first-child")
    assert opened.evaluate(ON_SCREEN, ".plot[data-figure=answer]")


@pytest.mark.soak
def test_the_menu_fits_a_phone(open_page, labelled):
    opened = open_page(labelled[1], **PHONE)
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    menu = opened.get_by_role("navigation", name="Contents")
    assert menu.evaluate("menu => [menu, ...menu.querySelectorAll('ul')].every((part) => part.scrollWidth <= part.clientWidth)")
    for link in menu.get_by_role("link").all():
        box = link.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert box["height"] >= 24  # what a finger can hit (WCAG 2.2, target size)
    assert menu.bounding_box()["height"] < 844 / 6
    menu.get_by_role("link", name="Completions").click()
    until(opened, "document.getElementById('completions').getBoundingClientRect().top < innerHeight / 2")
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.soak
def test_kinds_of_answers_stand_beside_rates_and_selections(open_page, labelled):
    (summary, completions), page = labelled
    opened = open_page(page, urlencode({"target": "after", "instructions": "harmful", "edit": "none"}))
    until(opened, "document.querySelectorAll('#kinds .kinds').length === 2")
    cell = next(
        c for c in summary.cells
        if (c.target, c.instructions, c.intervention, c.judge) == ("after", "harmful", "none", "taxonomy")
    )  # fmt: skip
    given = completions.loc[completions["key"] == cell.key, "taxonomy_label"].value_counts()
    words = opened.locator("#kinds .kinds", has_text="taxonomy").locator(".detail").text_content()
    assert sorted(words.split(", ")) == sorted(f"{100 * count / cell.n:.0f} % {label}" for label, count in given.items())
    # The same words stand beside the rate of the cell, in the table that is open.
    rows = opened.locator("#labels tbody tr")
    assert rows.count() == len({c.key for c in summary.cells})
    texts = [text.replace("\N{NO-BREAK SPACE}", " ") for text in opened.locator("#labels .kinds .detail").all_text_contents()]
    assert words in texts
    widths = opened.locator("#labels .stack").first.locator("b").evaluate_all("parts => parts.map((part) => part.clientWidth)")
    assert all(width > 0 for width in widths)
