"""The table of completions in a real Chromium: every filter, search, link and download against the completions themselves."""

import csv
import io
import json
from urllib.parse import urlencode

import pytest

from demur.report.write_report import write_report
from tests.report.chromium import until
from tests.report.made_run import HOSTILE, make_run
from tests.report.many import MANY, expected, with_many


def state(**parts):
    return urlencode(parts)


@pytest.fixture
def completions(made):
    return made[1]


@pytest.fixture
def show(open_page, undrawn):
    """The page behind an address, with the note opened."""

    def shown(path=undrawn, **parts):
        opened = open_page(path, state(**parts))
        if not parts:  # a link opens the completions by itself
            opened.locator("#browser > summary").click()
        until(opened, "document.getElementById('status').textContent !== ''")
        return opened

    return shown


def status(opened):
    return opened.locator("#status").text_content()


def counted(opened):
    text = status(opened)
    return 0 if text.startswith("None of") else int(text.split(" of ")[0].replace(",", ""))


@pytest.mark.soak
def test_harmful_text_is_behind_a_note_that_stays_open(open_page, undrawn):
    first = open_page(undrawn)
    assert not first.locator("#rows").is_visible()
    assert first.locator("#rows tr").count() == 0
    first.locator("#browser > summary").click()
    # What is kept is written a moment behind the click.
    until(first, 'Object.values(localStorage).includes("yes")')
    assert first.locator("#rows tbody tr").count() == 50
    again = open_page(undrawn, context=first.context)
    assert again.locator("#rows tbody tr").count() == 50
    again.locator("#browser > summary").click()
    until(again, 'Object.values(localStorage).includes("no")')
    assert open_page(undrawn, context=first.context).locator("#rows tbody tr").count() == 0


def test_every_filter_selects_what_it_says(show, completions):
    opened = show()
    assert counted(opened) == len(completions)
    edited = completions["intervention"] != "none"
    keys = ["target", "prompt", "instructions", "index"]
    alone = completions[~edited].set_index(keys)["prefix_refusal"]
    before = alone.loc[list(completions[keys].itertuples(index=False, name=None))].to_numpy()
    now = completions["prefix_refusal"].to_numpy()
    wanted = {
        ("checkpoint", "after"): completions["target"] == "after",
        ("instructions", "harmless"): completions["instructions"] == "harmless",
        ("intervention", "ablate"): completions["intervention"] == "ablate",
        ("direction", "random-1"): completions["source"] == "random-1",
        ("verdict", "refusal"): now,
        ("verdict", "other"): ~now,
        ("verdict", "gained"): edited.to_numpy() & now & ~before,
        ("verdict", "lost"): edited.to_numpy() & ~now & before,
        ("verdict", "disagree"): completions["prefix_refusal"] != completions["substring_refusal"],
    }
    for (facet, value), rows in wanted.items():
        opened.locator(f"#facet-{facet}").select_option(value)
        assert counted(opened) == rows.sum(), (facet, value)
        opened.locator("button[type=reset]").click()
    assert counted(opened) == len(completions)


@pytest.mark.soak
def test_arms_and_labels_are_filters_where_there_are_several(show, tmp_path):
    summary, completions = make_run(prompts=("chatml", "plain"), judges=("prefix", "taxonomy"), n=5, controls=0)
    opened = show(write_report(tmp_path, summary, completions))
    opened.locator("#facet-target").select_option("after / plain")
    assert counted(opened) == ((completions["target"] == "after") & (completions["prompt"] == "plain")).sum()
    opened.locator("button[type=reset]").click()
    opened.locator("#facet-judge").select_option("taxonomy")
    label = completions["taxonomy_label"].value_counts().index[-1]
    opened.locator("#facet-label").select_option(label)
    assert counted(opened) == (completions["taxonomy_label"] == label).sum() > 0
    # One that only the other judge gives is found all the same; one that both give is the chosen judge's.
    opened.locator("button[type=reset]").click()
    opened.locator("#facet-label").select_option(label)
    assert counted(opened) == (completions["taxonomy_label"] == label).sum()
    opened.locator("#facet-label").select_option("refusal")
    assert counted(opened) == (completions["prefix_label"] == "refusal").sum()


@pytest.mark.soak
def test_a_completion_without_a_verdict_is_neither_a_refusal_nor_another_answer(show, completions, made, tmp_path):
    partial = completions.astype(dict.fromkeys(("prefix_refusal", "prefix_label", "prefix_evidence"), object))
    failed = [0, 7, 41]
    partial.loc[failed, ["prefix_refusal", "prefix_label", "prefix_evidence"]] = None
    opened = show(write_report(tmp_path, made[0], partial))
    assert counted(opened) == len(partial)
    kept = partial.drop(index=failed)
    for value, number in (("refusal", kept.prefix_refusal.sum()), ("other", (~kept.prefix_refusal.astype(bool)).sum())):
        opened.locator("#facet-verdict").select_option(value)
        assert counted(opened) == number, value
    opened.locator("#facet-verdict").select_option("none")
    assert counted(opened) == 3
    assert "prefix: no verdict" in opened.locator("#rows").text_content()
    with opened.expect_download() as download:
        opened.locator("#download-jsonl").click()
    rows = [json.loads(line) for line in download.value.path().read_text("utf-8").splitlines()]
    assert {row["prefix_refusal"] for row in rows} == {None} != {row["substring_refusal"] for row in rows}


@pytest.mark.soak
def test_search_wants_every_word_in_instruction_or_completion(show, completions):
    opened = show()
    opened.locator("#q").fill('"two is" harmless>')
    found = completions["completion"].str.contains("two is") & completions["instruction"].str.contains("harmless>")
    until(opened, f"document.getElementById('status').textContent.startsWith('{found.sum()} of')")
    assert found.sum() > 0
    opened.locator("#q").fill("sorry nowhere")
    until(opened, "document.getElementById('status').textContent.startsWith('None of')")


@pytest.mark.soak
def test_the_address_holds_the_state(show, completions):
    opened = show()
    opened.locator("#facet-intervention").select_option("ablate")
    opened.locator("#facet-verdict").select_option("other")
    opened.locator(".pager").first.get_by_role("button", name="Next").click()
    chosen = completions[(completions["intervention"] == "ablate") & ~completions["prefix_refusal"]]
    assert len(chosen) > 50
    parts = dict(pair.split("=") for pair in opened.evaluate("location.hash.slice(1)").split("&"))
    assert parts == {"intervention": "ablate", "verdict": "other", "page": "2"}
    again = show(**parts)
    assert status(again) == status(opened)
    assert status(again).endswith(f"51 to {min(len(chosen), 100)} shown.")
    again.evaluate("location.hash = 'verdict=refusal'")
    until(again, "document.getElementById('facet-verdict').value === 'refusal'")
    assert counted(again) == completions["prefix_refusal"].sum()


@pytest.mark.soak
def test_one_instruction_stands_side_by_side_in_every_cell(show, completions):
    opened = show(verdict="refusal")
    opened.locator("#rows button", has_text="Side by side").first.click()
    wanted = dict(pair.split("=") for pair in opened.evaluate("location.hash.slice(1)").split("&"))["instruction"]
    kind, index = wanted.split("+")
    chosen = completions[(completions["instructions"] == kind) & (completions["index"] == int(index))]
    assert opened.locator("#rows article").count() == len(chosen) == counted(opened)
    assert sorted(opened.locator("#rows article .text").all_text_contents()) == sorted(
        text if text.strip() else ("empty" if text == "" else "only white space") for text in chosen["completion"]
    )
    marks = opened.locator("#rows article mark").all_text_contents()
    assert sorted(marks) == sorted(chosen.loc[chosen["prefix_refusal"], "prefix_evidence"])
    opened.get_by_role("button", name="Back to all").click()
    assert counted(opened) == len(completions)


@pytest.mark.soak
def test_downloads_hold_the_selection_to_the_letter(show, completions):
    opened = show(intervention="ablate", checkpoint="after")
    chosen = completions[(completions["intervention"] == "ablate") & (completions["target"] == "after")]
    for kind in ("csv", "jsonl"):
        with opened.expect_download() as caught:
            opened.locator(f"#download-{kind}").click()
        assert caught.value.suggested_filename == f"demo-completions.{kind}"
        text = caught.value.path().read_bytes().decode("utf-8")
        rows = (
            list(csv.DictReader(io.StringIO(text, newline="")))
            if kind == "csv"
            else [json.loads(x) for x in text.split("\n") if x]
        )
        told = {(row["source"], row["instructions"], int(row["index"])): row["completion"] for row in rows}
        assert len(rows) == len(chosen) == len(told)
        for row in chosen.to_dict("records"):
            assert told[row["source"], row["instructions"], row["index"]] == row["completion"]
        refused = [str(row["prefix_refusal"]).lower() == "true" for row in rows]
        assert sum(refused) == chosen["prefix_refusal"].sum()
        assert all("baseline_completion" in row and "prefix_evidence" in row for row in rows)


@pytest.mark.soak
def test_one_can_be_copied(show, completions):
    opened = show(q='"number 3?"', intervention="none", instructions="harmful", checkpoint="before")
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.locator("#rows button", has_text="Copy").click()
    until(opened, "document.getElementById('status').textContent.startsWith('Copied')")
    copied = opened.evaluate("navigator.clipboard.readText()")
    assert copied == f"before, No intervention; harmful 3\n\nHow do I <harmful> thing & number 3?\n\n{HOSTILE[3]}\n"


def test_hostile_text_shows_as_text(show, completions):
    opened = show(intervention="none", checkpoint="before", instructions="harmful")
    shown = opened.locator("#rows .text").all_text_contents()
    for text in HOSTILE:
        if text.strip() and text in set(completions["completion"]):
            assert text in shown
    assert opened.title() == "demo: refusal report"
    assert opened.locator("#rows").locator("script, img, b:not(th > b)").count() == 0


@pytest.mark.soak
def test_fifty_thousand_rows_are_filtered_right(show, undrawn, tmp_path):
    opened = show(with_many(undrawn, tmp_path / "many.html"))
    assert counted(opened) == MANY
    assert opened.locator("#rows tbody tr").count() == 50
    for parts in (
        {"intervention": "ablate"},
        {"verdict": "lost"},
        {"q": "sorry 17"},
        {"checkpoint": "after", "verdict": "refusal"},
    ):
        opened.evaluate("parts => { location.hash = new URLSearchParams(parts); }", parts)
        wanted = expected(**parts)
        until(opened, f"document.getElementById('status').textContent.startsWith({json.dumps(f'{wanted:,} of')})")
        assert opened.locator("#rows tbody tr").count() <= 50
