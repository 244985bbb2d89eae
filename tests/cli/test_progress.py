"""Progress: bars in a terminal, few plain lines elsewhere, nothing when quiet; always on standard error."""

import io
import itertools

import pytest
from rich.console import Console

from demur.cli import progress_bars
from demur.cli.progress_bars import bars, clock_time, pace


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((400, 1400, 20.0, False), "400 of 1400, 20 rows/s, 0:50 left"),
        ((1400, 1400, 73.4, True), "1400, 19.1 rows/s, 1:13"),
        ((0, 1400, 3.0, False), "0 of 1400, 0:03 so far"),
        ((12, None, 4.0, False), "12, 3 rows/s, 0:04 so far"),
        ((1, 1, 12.2, True), "0:12"),
        ((5000, 5000, 2.0, True), "5000, 2500 rows/s, 0:02"),
    ],
)
def test_pace(given, words):
    count, total, seconds, done = given
    assert pace(count, total, seconds, done=done) == words


def test_clock_time():
    assert [clock_time(seconds) for seconds in (0.4, 59.6, 65, 7265)] == ["0:00", "1:00", "1:05", "2:01:05"]


def test_quiet_shows_nothing(capsys):
    with bars(True)("completions", 3) as done:
        done(3)
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_a_line_a_phase_on_standard_error(capsys):
    with bars(False)("completions of [red]chat", 200) as done:
        for _ in range(20):
            done(10)
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("completions of [red]chat: 200, ")
    assert "rows/s" in line


def test_a_long_phase_speaks_once_a_minute():
    shown = []
    ticks = itertools.count(0, 20)  # every look at the clock is 20 seconds later
    with progress_bars._lines(shown.append, "completions", 12, clock=lambda: float(next(ticks))) as done:
        for _ in range(12):
            done(1)
    assert 3 <= len(shown) <= 8
    assert shown[0].startswith("completions: ")
    assert " of 12, " in shown[0]
    assert " left" in shown[0]
    assert shown[-1].startswith("completions: 12, ")


def test_a_terminal_gets_a_bar_that_fits(monkeypatch):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None, legacy_windows=False)
    with progress_bars.LiveBars(console).phase("completions of a-checkpoint-with-a-long-name", 1400) as done:
        done(700)
        done(700)
    text = stream.getvalue()
    assert "1400, " in text
    assert "\u2026" in text  # the long name is cut, not the numbers


def test_phases_of_several_workers_share_the_terminal():
    stream = io.StringIO()
    shown = progress_bars.LiveBars(Console(file=stream, force_terminal=True, width=80, color_system=None, legacy_windows=False))
    with shown.phase("completions of base", 20) as base:
        with shown.phase("completions of chat", 10) as chat:
            chat(10)
        base(20)
    # The phase that ended first has its line above the bar of the other one.
    assert "completions of chat: 10, " in stream.getvalue()
    assert stream.getvalue().rstrip().rpartition("completions of base")[2].count("20, ") == 1
    with shown.phase("verdicts and report", 1) as report:
        report(1)
    assert stream.getvalue().count("verdicts and report") >= 1


def test_a_phase_that_fails_says_no_more():
    shown = []
    with pytest.raises(KeyError), progress_bars._lines(shown.append, "completions", 2):
        raise KeyError
    assert shown == []
