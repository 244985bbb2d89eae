"""Tables: eighty columns in a terminal, LaTeX that sets what stands there."""

import io
import re

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
    Console(file=stream, width=width, **options).print(terminal.terminal_table(summary))
    return stream.getvalue()


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
def test_terminal_table_fits_eighty_columns(settings):
    summary, _ = make_run(**{"n": 10, **settings})
    text = printed(summary, width=200)
    assert max(map(len, text.splitlines())) <= 80
    assert "\u2026" not in text
    rates = re.findall(r"\d+(\.\d)? % \[\d+(?:\.\d)?, \d+(?:\.\d)?\]", text)
    assert len(rates) == sum(cell.judge == "prefix" for cell in summary.cells)


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
    dimmed = [line for line in text.splitlines() if "\x1b[2m" in line and "random-" in line]
    controls = sum(cell.control and cell.judge == "prefix" for cell in summary.cells)
    assert len(dimmed) == controls
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
