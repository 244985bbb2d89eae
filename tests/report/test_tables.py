"""Tables: eighty columns in a terminal, LaTeX that sets what stands there."""

import io
import re
from collections import Counter

import pandas
import pytest
from rich.console import Console

from demur.core import number_format
from demur.report import latex, result_tables, terminal
from demur.report.cell_view import entries
from demur.report.complete_summary import parsed_summary
from tests.report.made_run import made_facts, make_run


def printed(summary, width=80, **options):
    stream = io.StringIO()
    Console(file=stream, width=max(width, 40), **options).print(terminal.terminal_table(summary, width))
    return stream.getvalue()


def pools(summary):
    """What the terminal shows in one line each: a cell, or the controls of one kind beside the same edit."""
    found: dict[object, list] = {}
    for entry in entries(summary, "prefix"):
        cell = entry.cell
        edit = (cell.intervention, cell.layer, cell.layers, cell.sites, cell.positions, cell.coefficient)
        key = (*cell.arm, entry.instructions, entry.source.partition("-")[0], *edit) if entry.control else cell.key
        found.setdefault(key, []).append(entry)
    return list(found.values())


@pytest.fixture
def unfolded(monkeypatch):
    """Tables of any length: a long one is folded, which other tests look at."""
    monkeypatch.setattr(terminal, "MOST_LINES", 1000)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"checkpoints": ("a-checkpoint-with-a-name-of-some-length-v1.1", "b")},
        {"layers": (1, 2), "coefficients": (1.0, 2.0), "prompts": ("chatml", "plain")},
        {"n": 400},
        {"checkpoints": ("only",), "controls": 0},
    ],
)
def test_terminal_table_fits_eighty_columns(settings, unfolded):
    summary, _ = make_run(**{"n": 10, **settings})
    text = printed(summary)
    assert max(map(len, text.splitlines())) <= 80
    assert "\u2026" not in text
    rates = re.findall(r"\d+(\.\d)? % \[\d+(?:\.\d)?, \d+(?:\.\d)?\]", text)
    assert len(rates) == sum(len(pool) == 1 for pool in pools(summary))


@pytest.mark.parametrize(
    ("n", "prompts", "step"),
    [(10, ("chatml",), 1), pytest.param(400, ("chatml",), 1, marks=pytest.mark.soak), (400, ("chatml", "plain"), 25)],
)
def test_no_width_cuts_a_number(n, prompts, step, unfolded):
    summary, _ = make_run(n=n, prompts=prompts, layers=(1, 2), coefficients=(0.5, 2.0))
    digits = number_format.decimals(n)
    singles = [pool[0] for pool in pools(summary) if len(pool) == 1]
    expected = {
        "rates": sorted(number_format.percent(one.rate, one.n) for one in singles),
        "intervals": sorted(number_format.interval(one.interval, digits) for one in singles),
        "changes": sorted(number_format.points(one.change, digits, minus="-") for one in singles if one.change is not None),
    }
    number = r"\d+\.\d" if digits else r"\d+"
    for width in range(30, 121, step):
        text = printed(summary, width)
        assert max(map(len, text.splitlines())) <= max(width, 40)
        assert "\u2026" not in text
        text = text[: text.index("Judge prefix")]
        found = {
            "rates": sorted(re.findall(rf"(?<!to )(?<![\d.]){number} %(?! *$.*\n.* to )", text)),
            "intervals": sorted(re.findall(rf"\[{number}, {number}\]", text)),
        }
        assert found["intervals"] == expected["intervals"], width
        assert not Counter(expected["rates"]) - Counter(found["rates"]), width
        shown = Counter(re.findall(rf"(?<![\w-])[-+]?{number}(?= *$)", text, re.MULTILINE))
        assert not Counter(expected["changes"]) - shown, width


def test_two_controls_are_one_line_with_the_range_of_their_rates():
    summary, _ = make_run(n=10, controls=2)
    text = printed(summary)
    many = [pool for pool in pools(summary) if len(pool) == 2]
    lines = [line for line in text.splitlines() if "2 random" in line]
    assert len(lines) == len(many) > 0
    for line, pool in zip(lines, many, strict=True):
        low, high = (pick(one.rate for one in pool) for pick in (min, max))
        assert (f"{100 * high:.0f} %" in line, low == high or f"{100 * low:.0f} to" in line) == (True, True)


def test_a_significant_change_is_marked_in_the_text():
    summary, _ = make_run()
    text = printed(summary)
    assert "\x1b" not in text
    marked = {entry.key for pool in pools(summary) for entry in pool if entry.p_holm is not None and entry.p_holm < 0.05}
    assert marked
    assert text.count(" * ") == sum(any(one.key in marked for one in pool) for pool in pools(summary)) + 1 + ("* for any" in text)


def test_terminal_table_groups_targets_with_baseline_first():
    summary, _ = make_run()
    lines = [line for line in printed(summary).splitlines() if "%" in line and "[" in line]
    assert lines[0].startswith("before")
    assert "baseline" in lines[0]
    assert [line.split()[0] for line in lines if line[0] != " "] == ["before", "after"]
    assert printed(summary).count("\u2500" * 80) == 2


def test_terminal_table_dims_controls_and_reads_no_markup():
    summary, _ = make_run(checkpoints=("[red]before[/red]", "after"))
    text = printed(summary, force_terminal=True, color_system="standard")
    dimmed = [line for line in text.splitlines() if "\x1b[2m" in line and " random" in line]
    assert len(dimmed) == sum(pool[0].control for pool in pools(summary)) > 0
    assert "[red]" in printed(summary)


def test_latex_escapes_every_special_character():
    escaped = latex.latex_escape("50 % of a_b & {c} #1 $x^2$ ~ \\frac < > | \N{MINUS SIGN}4 2 \N{MULTIPLICATION SIGN} raw")
    assert escaped == (
        r"50 \% of a\_b \& \{c\} \#1 \$x\textasciicircum{}2\$ \textasciitilde{} \textbackslash{}frac "
        r"\textless{} \textgreater{} \textbar{} $-$4 2 $\times$ raw"
    )


def test_latex_tables_are_whole():
    summary, _ = make_run(n=3)
    text = latex.latex(result_tables.readable_results(entries(summary, "prefix")), "Rates of a & b", "tab:x")
    assert r"\caption{Rates of a \& b" in text
    assert r"}\label{tab:x}" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + sum(cell.judge == "prefix" for cell in summary.cells)
    columns = {len(re.split(r"(?<!\\)&", row)) for row in rows}
    shape = re.search(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", text)
    assert shape is not None
    assert columns == {len(shape[1])}
    for command in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(command) == 1


def test_long_latex_tables_break_across_pages_and_brackets_start_no_option():
    text = latex.latex(pandas.DataFrame({"a": ["[1]"] * (latex.LONG + 1)}), "c", "l")
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}") == 1
    assert text.count("\n{}[1]") == latex.LONG + 1


def test_readable_results_count_completions_on_which_a_judge_failed():
    facts, _ = made_facts(n=4, judges=("prefix",))
    assert "No verdict" not in result_tables.readable_results(entries(parsed_summary(facts)))
    facts["cells"][0] = {**facts["cells"][0], "failures": 3}
    shown = result_tables.readable_results(entries(parsed_summary(facts)))
    assert sorted(shown["No verdict"], reverse=True)[:2] == ["3", "0"]


def test_readable_results_leave_out_what_is_the_same_everywhere():
    one, _ = make_run(n=3, judges=("prefix",))
    two, _ = make_run(n=3, prompts=("a", "b"))
    assert not {"Prompt", "Judge"} & set(result_tables.readable_results(entries(one)).columns)
    assert {"Prompt", "Judge"} <= set(result_tables.readable_results(entries(two)).columns)


def test_words():
    assert number_format.percent(0.005, 200) == "0.5 %"
    assert number_format.percent(0.42, 100) == "42 %"
    assert number_format.points(0.78) == "+78.0"
    assert number_format.points(-0.04, 0, minus="-") == "-4"
    assert number_format.points(-0.0001) == "0.0"
    assert number_format.points(None) == ""
    assert number_format.p_value(0.00099) == "< 0.001"
    assert number_format.p_value(0.0314) == "0.031"
    assert (number_format.p_value(0.0498), number_format.p_value(0.0502)) == ("< 0.05", "0.050")
    assert [number_format.p_in_words(p) for p in (0.0004, 0.0498, 0.0502, 0.2)] == [
        "p < 0.001",
        "p < 0.05",
        "p = 0.05",
        "p = 0.2",
    ]
    assert number_format.estimate(0.91, (0.8377, 0.9519), 100) == "91 % [84, 95]"
    assert number_format.estimate(18 / 2000, (0.0057, 0.0142), 2000) == "0.9 % [0.6, 1.4]"
    assert number_format.interval((0.0, 0.123), 0) == "[0, 12]"


def test_lines_do_not_end_inside_a_number():
    text = "from 91 % to 15 % [9, 23] (p < 0.001, Holm) of 3, 4 and [a, b], p = 1"
    kept = ["91_%", "to", "15_%", "[9,_23]", "(p_<_0.001,", "Holm)", "of", "3,", "4", "and", "[a,", "b],", "p_=_1"]
    assert number_format.tied(text).replace("\N{NO-BREAK SPACE}", "_").split(" ") == ["from", *kept]
