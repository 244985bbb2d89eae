"""Arms in a study: `sources` and `targets` that name them, and directions that are moved to another prompt format."""

import tomllib

import pytest
import rich.console

import demur
from demur.analysis.cell import Cell
from demur.analysis.claim_families import DeclaredClaim
from demur.core.errors import InputError
from demur.report.cell_view import entries
from demur.report.result_tables import readable_results, result_table
from demur.report.terminal import CROSSES, terminal_table
from demur.runs.run import Run
from demur.runs.runner import run
from demur.runs.store import Store
from demur.runs.stored_records import with_source_prompts
from demur.study.plan import make_plan
from demur.study.spec import make_study
from demur.study.study_files import load_study
from tests.test_study import changed
from tests.tiny_study import EARLIER_DEMO
from tests.tiny_study import make_study as make_tiny_study

FORMATS = {
    "base": {"model": "a/base", "prompts": ["chatml", "vicuna", "Q: {instruction}\nA:"]},
    "chat": {"model": "a/chat", "prompts": ["native", "chatml"]},
}


def study(**edit):
    return make_study(changed(checkpoints=FORMATS, interventions=[{"kind": "ablate", "on": "harmful", **edit}]))


def moves(found):
    """Direction -> target arms, of the edits with real directions."""
    cells = (cell for cell in make_plan(found).cells if cell.direction is not None and not cell.direction.control)
    return {(cell.direction.name, cell.target.name) for cell in cells}


def test_an_intervention_may_name_single_arms():
    assert moves(study(sources=["base/chatml"], targets=["chat/native"])) == {("base.chatml", "chat/native")}
    assert moves(study(sources=["base/chatml", "base/vicuna"], targets=["base/vicuna"])) == {
        ("base.chatml", "base/vicuna"),
        ("base.vicuna", "base/vicuna"),
    }
    mixed = moves(study(sources=["chat"], targets=["base/q-a"]))
    assert mixed == {("chat.native", "base/q-a"), ("chat.chatml", "base/q-a")}
    # Every direction of every arm in every arm, also between the formats of the same weights.
    assert len(moves(study())) == 5 * 5


def test_null_directions_go_with_the_arms_whose_norms_they_have():
    plan = make_plan(study(sources=["base/vicuna"], targets=["chat/native"]))
    beside = {cell.direction.beside for cell in plan.cells if cell.direction is not None and cell.direction.control}
    assert beside == {"base.vicuna"}


def test_a_text_in_sources_means_the_arm_that_it_names():
    assert study(sources=["base/Q: {instruction}\nA:"]).interventions[0].sources == ["base/q-a"]


def test_revisions_of_an_arm_are_written_out():
    checkpoints = {**FORMATS, "base": {**FORMATS["base"], "revision": ["v1", "v2"]}}
    found = make_study(changed(checkpoints=checkpoints, interventions=[{"kind": "ablate", "sources": ["base/vicuna"]}]))
    assert found.interventions[0].sources == ["base-v1/vicuna", "base-v2/vicuna"]


@pytest.mark.parametrize(
    ("name", "near"),
    [("base/chatlm", "base/chatml"), ("chat/natve", "chat/native"), ("bse", "base"), ("chat/vicuna", "chat/native|base/vicuna")],
)
@pytest.mark.parametrize("key", ["sources", "targets"])
def test_an_unknown_arm_gives_the_nearest(key, name, near):
    with pytest.raises(InputError, match=f"interventions.0.{key} names '{name}'; did you mean '({near})'"):
        study(**{key: [name]})


def test_one_choice_of_arms_has_one_digest():
    everything = study().digest
    assert study(sources=["base", "chat"]).digest == everything
    assert study(sources=["base/q-a", "base/vicuna", "base/chatml", "chat"]).digest == everything
    assert study(sources=["base"]).digest == study(sources=["base/chatml", "base/vicuna", "base/q-a"]).digest != everything
    assert study(sources=["base", "base/chatml"]).digest == study(sources=["base"]).digest
    assert study(sources=["base/chatml"]).digest != study(sources=["base"]).digest
    assert load_study(EARLIER_DEMO).digest == "77457cbd1b4ec6a2"
    found = study(sources=["base/q-a"], targets=["chat/native"])
    assert make_study(tomllib.loads(found.toml())) == found


@pytest.mark.parametrize(
    ("source", "read", "target", "prompt", "moved", "crosses"),
    [
        ("base", "a", "base", "a", "", False),
        ("base", "a", "chat", "a", "weights", False),
        ("base", "a", "base", "b", "prompt", True),
        ("base", "a", "chat", "b", "both", True),
        ("random-1", None, "chat", "b", "", False),
    ],
)
def test_a_cell_says_what_its_direction_was_moved_across(source, read, target, prompt, moved, crosses):
    cell = Cell(
        key="k", target=target, prompt=prompt, instructions="harmful", intervention="ablate", source=source, source_prompt=read
    )
    assert (cell.moved, cell.crosses_formats) == (moved, crosses)


def test_a_claim_may_name_single_arms():
    kinds = {"source": "base", "source_prompt": "a", "target": "chat", "prompt": "b", "instructions": "harmful"}
    cell = Cell(key="k", intervention="ablate", **kinds)
    for source, target, covered in (
        ("base", "chat", True),
        ("base/a", "chat/b", True),
        ("base/b", None, False),
        (None, "chat/a", False),
    ):
        assert DeclaredClaim(kind="ablate", source=source, target=target).covers(cell) is covered
    edit = {"kind": "ablate", "on": "harmful"}
    found = make_study(
        changed(checkpoints=FORMATS, interventions=[edit], claims=[{"kind": "ablate", "source": "base/vicuna", "target": "chat"}])
    )
    assert found.claims[0].source == "base/vicuna"
    with pytest.raises(InputError, match="claims.0.target names 'chat/natve'; did you mean 'chat/native'"):
        make_study(changed(checkpoints=FORMATS, interventions=[edit], claims=[{"kind": "ablate", "target": "chat/natve"}]))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arms")
    make_tiny_study(folder)
    settings = ['checkpoints.chat.prompts=["native", "user-assistant"]', "measurements=[]", 'judges=["prefix"]']
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "report", Run.judge_stored)
        run(load_study(folder / "study.toml", settings), folder / "run").close()
    return folder / "run"


def test_moves_to_another_format_are_marked_everywhere(done):
    with demur.open_run(done) as opened:
        opened.report(figures="none")
        summary = opened.summary_record()
    found = {(entry.cell.direction, entry.cell.target, entry.cell.prompt): entry for entry in entries(summary) if entry.edited}
    assert found["base", "chat", "user-assistant"].moved == "weights"
    assert found["base", "chat", "native"].moved == "weights and prompt format"
    assert found["chat.native", "chat", "user-assistant"].moved == "prompt format"
    assert found["chat.native", "chat", "native"].moved == ""
    assert found["random-1", "chat", "native"].moved == ""
    table = result_table(summary)
    crossing = table["moved across"].str.contains("format")
    assert 0 < crossing.sum() < len(table)
    assert set(readable_results(list(found.values()))["Moved across"]) == {
        "", "weights", "prompt format", "weights and prompt format",
    }  # fmt: skip
    page = rich.console.Console(width=160, record=True)
    page.print(terminal_table(summary, 160))
    text = page.export_text()
    assert f"{CROSSES} The direction was read under another prompt format." in " ".join(text.split())
    claims = [claim.text for claim in summary.claims if "read under" in claim.text]
    assert any('read under "native", used under "user-assistant"' in one for one in claims)
    assert '"moved":"prompt format"' in (done / "report.html").read_text(encoding="utf-8")


def test_cells_of_earlier_versions_learn_their_source_prompt_from_the_direction(done):
    store = Store.open(done)
    stored, directions = store.results().cells, store.directions()
    earlier = [cell.model_copy(update={"source_prompt": None}) for cell in stored]
    assert earlier != stored
    assert with_source_prompts(earlier, directions) == list(stored)
