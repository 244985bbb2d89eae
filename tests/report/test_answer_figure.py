"""The figure beside the answer: it shows the rates that the sentences state, and the null directions they were compared with."""

import re

from demur.core.number_format import percent
from demur.report.sections.section import ReportView, figures_of
from tests.report.made_run import make_run


def bars(figure):
    return {(block.title, row.label): row.bars[0] for block in figure.content.blocks for row in block.rows}


def test_every_rate_of_the_sentences_is_in_the_figure():
    view = ReportView.of(*make_run())
    found = bars(figures_of(view)["answer"])
    for answer in view.summary.answers:
        cells = [next(e for e in view.entries if e.key == key) for key in answer.cells]
        assert cells
        for cell in (cell for cell in cells if not cell.control):
            assert percent(cell.rate, cell.n) in answer.text
            assert any(
                block == f"{cell.instructions} instructions"
                and label.startswith(f"{cell.target}, ")
                and bar.value == 100 * cell.rate
                for (block, label), bar in found.items()
            )


def test_an_edit_stands_beside_the_null_that_comes_closest():
    summary, completions = make_run(controls=3)
    signs = {"none": 0, "add": 1, "ablate": -1}
    cells = tuple(cell.model_copy(update={"expected": signs[cell.intervention]}) for cell in summary.cells)
    view = ReportView.of(summary.model_copy(update={"cells": cells}), completions)
    found = bars(figures_of(view)["answer"])
    controls = {key: bar for key, bar in found.items() if bar.control}
    assert controls
    for (block, label), bar in controls.items():
        target, done = re.fullmatch(r"(\w+), random direction (\w+)", label).groups()
        there = [
            e for e in view.entries
            if e.control and e.target == target and e.done == done and block == f"{e.instructions} instructions"
        ]  # fmt: skip
        assert len(there) == 3
        # At a dose that depends on the norm, a sentence is about the null directions with the norm of the edit's direction.
        stated = {key for answer in view.summary.answers for key in answer.cells}
        rates = [e.rate for e in there if e.key in stated]
        assert bar.value == 100 * (max(rates) if done == "added" else min(rates))


def test_a_run_without_answers_has_no_such_figure():
    summary, completions = make_run(n=3)
    assert "answer" not in figures_of(ReportView.of(summary.model_copy(update={"answers": ()}), completions))
