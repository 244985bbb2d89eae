"""The page: self-contained, complete, and deaf to hostile text."""

import gzip
import hashlib
import json
import re
from base64 import b64decode, b64encode
from html.parser import HTMLParser

import pytest

from demur.core.number_format import tied
from demur.report.payload import script_json
from demur.report.write_report import write_report
from tests.report.made_run import HOSTILE, make_run

VOID = {"meta", "input", "br", "img", "link", "hr"}


class Outline(HTMLParser):
    """Elements with their attributes, the texts of scripts, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.scripts, self.words = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self.open and self.open[-1] != "style":
            self.words.append(data)


@pytest.fixture(scope="module")
def text(page):
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outline(text):
    return Outline(text)


def data_of(outline):
    return json.loads(next(body for attrs, body in outline.scripts if attrs.get("id") == "completions-data"))


def test_tags_are_balanced_and_ids_unique(outline):
    assert outline.open == []
    ids = [attrs["id"] for _, attrs in outline.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_every_reference_stays_inside_the_page(text, outline):
    for tag, attrs in outline.elements:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data", "poster"):
            assert attrs.get(name, "#").startswith("#"), (tag, attrs)
    ids = {attrs["id"] for _, attrs in outline.elements if "id" in attrs}
    inside = {attrs[name][1:] for _, attrs in outline.elements for name in ("href", "xlink:href") if name in attrs}
    inside |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert inside <= ids
    assert not re.search(r"url\((?!#)|@import|https?:", text)


def test_the_policy_allows_exactly_the_page_script_and_plotly(outline):
    (script,) = [body for attrs, body in outline.scripts if attrs.get("type") is None]
    (packed,) = [body for attrs, body in outline.scripts if attrs.get("id") == "plotly"]
    plotly = gzip.decompress(b64decode(packed))
    assert plotly.startswith(b"/**\n* plotly.js (cartesian - minified) v4.1.1")
    (policy,) = [attrs["content"] for tag, attrs in outline.elements if attrs.get("http-equiv") == "Content-Security-Policy"]
    allowed = " ".join(f"'sha256-{b64encode(hashlib.sha256(each).digest()).decode()}'" for each in (script.encode(), plotly))
    assert re.search(r"script-src ([^;]*?) *;", policy)[1] == allowed
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy


def test_no_hostile_text_stands_in_the_page_unescaped(text, outline):
    for hostile in HOSTILE:
        if set(hostile) & set("<>&"):
            assert hostile not in text
    assert {tag for tag, _ in outline.elements} & {"img", "i", "iframe", "object"} == set()
    assert [attrs.get("type") for attrs, _ in outline.scripts] == [*["application/json"] * 2, "text/plain", None]
    assert not any(name.startswith("on") for _, attrs in outline.elements for name in attrs)
    assert "<i>Really</i> & truly?" in "".join(outline.words)


def test_every_completion_comes_back_out_of_the_page(outline, made):
    _, completions = made
    data = data_of(outline)
    found = {}
    for cell in data["cells"]:
        rows = cell["rows"]
        for position, (instruction, said, tokens) in enumerate(
            zip(rows["instruction"], rows["text"], rows["tokens"], strict=True)
        ):
            kind, index, asked = data["instructions"][instruction]
            verdicts = [tuple(data["verdicts"][column[position]]) for column in rows["verdicts"]]
            found[cell["key"], kind, index] = (asked, data["texts"][said], tokens, verdicts)
    assert len(found) == len(completions)
    for row in completions.to_dict("records"):
        verdicts = [
            (int(row[f"{judge}_refusal"]), row[f"{judge}_label"], row[f"{judge}_evidence"]) for judge in ("prefix", "substring")
        ]
        assert found[row["key"], row["instructions"], row["index"]] == (
            row["instruction"],
            row["completion"],
            row["n_tokens"],
            verdicts,
        )


def test_each_text_is_kept_once(outline, made):
    _, completions = made
    data = data_of(outline)
    assert len(data["texts"]) == completions["completion"].nunique()
    assert len(data["instructions"]) == len(completions[["instructions", "index"]].drop_duplicates())


def test_sections_come_in_order_with_figures_said_in_words(outline, page):
    sections = [attrs["id"] for tag, attrs in outline.elements if tag == "section"]
    assert sections == ["answer", "rates", "transfer", "where", "completions", "method"]
    assert [tag for tag, _ in outline.elements if tag in ("main", "header", "footer")] == ["header", "main", "footer"]
    figures = [attrs["id"] for tag, attrs in outline.elements if tag == "figure"]
    assert figures[:4] == ["figure-answer", "figure-rates", "figure-added", "figure-ablated"]
    drawn = [attrs for _, attrs in outline.elements if str(attrs.get("class")).startswith("panel")]
    assert len(drawn) == len(list((page.parent / "figures").glob("*.svg")))
    pictures = [attrs["aria-label"] for _, attrs in outline.elements if attrs.get("role") == "img"]
    assert len(pictures) == len(drawn) + len(figures)
    assert all(len(words) > 30 for words in pictures)


def test_three_answers_come_first_and_what_is_not_shown_is_marked(outline, made):
    summary, _ = made
    assert len(summary.answers) == 3
    words = "".join(outline.words)
    assert all(tied(answer.text) in words for answer in summary.answers)
    marked = [attrs for tag, attrs in outline.elements if tag == "li" and attrs.get("class") == "not-shown"]
    assert len(marked) == sum(not each.shown for each in (*summary.answers, *summary.claims)) > 0
    assert outline.words.count("not shown") == len(marked)


def test_names_of_checkpoints_are_escaped_everywhere(tmp_path):
    name = "<script>alert('name')</script>&"
    outline = Outline(write_report(tmp_path, *make_run(n=3, checkpoints=(name, "after"))).read_text(encoding="utf-8"))
    assert [attrs.get("type") for attrs, _ in outline.scripts] == [*["application/json"] * 2, "text/plain", None]
    assert name in "".join(outline.words)


@pytest.mark.parametrize("value", [*HOSTILE, "\ud800 alone", "\x00\x1f\x7f", "</SCRIPT >"])
def test_script_json_is_inert_and_exact(value):
    written = script_json({value: [value]})
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written) == {value: [value]}
    written.encode("utf-8")
