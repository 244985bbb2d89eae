"""A judge that fails on some completions: they stay on the page, and no other judge loses anything."""

import json
import re

import pytest

import demur
from demur.core.errors import WorkError
from demur.core.registry import registry
from demur.judges.judge import Failure, Verdict
from tests.tiny_study import make_study, warnings_of


class Choosy:
    """Fails on some completions, as `fails` says of their place; raises `raises` where it is set."""

    name, version, labels, refusal_labels = "choosy", 1, ("refusal", "other"), ("refusal",)
    reads_instruction, needs = False, "text"

    def __init__(self):
        self.fails, self.raises = (lambda place: place % 3 == 0), None

    def judge(self, batch):
        if self.raises is not None:
            raise self.raises
        return [Failure("choosy", "no answer") if self.fails(i) else Verdict("choosy", False, "other") for i in range(len(batch))]


@pytest.fixture
def choosy():
    judge = Choosy()
    registry("judge").register("choosy", judge)
    yield judge
    registry("judge").unregister("choosy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"))


def made(folder, out, judges):
    return demur.run(demur.load_study(folder, [f"judges={json.dumps(judges)}"]), out)


def page_data(run):
    page = (run.path / "report.html").read_text("utf-8")
    return json.loads(re.search(r'id="completions-data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.mark.parametrize(
    "judges", [["prefix", "choosy"], *(pytest.param(one, marks=pytest.mark.soak) for one in (["choosy", "prefix"], ["choosy"]))]
)
def test_completions_on_which_a_judge_failed_stay_on_the_page_without_its_verdict(folder, tmp_path, choosy, judges):
    with made(folder, tmp_path / "run", judges) as run:
        data, completions = page_data(run), run.completions()
        assert sum(len(cell["rows"]["text"]) for cell in data["cells"]) == len(completions) == 66
        place = data["judges"].index("choosy")
        given = [index for cell in data["cells"] for index in cell["rows"]["verdicts"][place]]
        assert given.count(-1) == 22 == completions.choosy_refusal.isna().sum()
        cells = [cell for cell in run.summary()["cells"] if cell["judge"] == "choosy"]
        assert sum(cell["n"] for cell in cells) == 44
        assert sum(cell["failures"] for cell in cells) == 22 == run.cells()["failures"].sum()


def test_a_judge_that_failed_on_a_whole_cell_hides_it_under_no_other_judge(folder, tmp_path, choosy):
    choosy.fails = lambda place: place < 9
    with made(folder, tmp_path / "run", ["choosy", "prefix"]) as run:
        data = page_data(run)
        assert len(data["cells"]) == 22
        assert sum({*cell["rows"]["verdicts"][0]} == {-1} for cell in data["cells"]) == 3


@pytest.mark.parametrize(
    ("error", "said"), [(WorkError("the server is down"), "the server is down."), (OSError("no route"), "OSError: no route.")]
)
def test_a_judge_that_raises_is_stated_and_stops_no_other(folder, tmp_path, choosy, error, said):
    choosy.raises = error
    with made(folder, tmp_path / "run", ["choosy", "prefix"]) as run:
        assert warnings_of(run.summary()) == [f"The judge choosy failed on 66 of 66 completions: {said}"]
        assert {cell["judge"] for cell in run.summary()["cells"]} == {"prefix"}
        choosy.raises, choosy.fails = None, lambda _: False
        run.report()
        assert warnings_of(run.summary()) == []
        assert -1 not in {index for cell in page_data(run)["cells"] for column in cell["rows"]["verdicts"] for index in column}


def test_where_every_judge_failed_the_report_says_why(folder, tmp_path, choosy):
    choosy.raises = WorkError("the server is down")
    with pytest.raises(WorkError, match="choosy failed on 66 of 66 completions: the server is down"):
        made(folder, tmp_path / "run", ["choosy"])


def test_failures_of_a_judge_that_left_the_study_are_not_told(folder, tmp_path, choosy):
    made(folder, tmp_path / "run", ["prefix", "choosy"]).close()
    with made(folder, tmp_path / "run", ["prefix"]) as run:
        assert warnings_of(run.summary()) == []
