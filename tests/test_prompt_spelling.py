"""Small edits of prompt formats: their texts, their arms in a study, and how much they move the rate of refusals."""

import statistics
import tomllib
from types import SimpleNamespace

import pytest

import demur
from demur.analysis.cell import Cell
from demur.analysis.spreads.prompt_spread import prompt_spreads, spelling_answers
from demur.core.effects.paired_change import paired_change
from demur.core.errors import InputError
from demur.core.statistics import wilson
from demur.inputs.format_names import format_name
from demur.inputs.prompt_edits import EDITS, SYSTEM_SENTENCE, FormatSpec, edited, missing_edits
from demur.inputs.prompt_formats import FORMATS, find_system_format
from demur.inputs.prompts import prompt_format
from demur.report.cell_view import entries
from demur.runs.run import Run
from demur.runs.runner import run
from demur.runs.store import Store
from demur.study.plan import make_plan
from demur.study.plan_outlook import look_ahead
from demur.study.plan_text import plan_lines
from demur.study.preflight import check
from demur.study.shorthand.named_formats import named_as_in_run
from demur.study.spec import make_study
from demur.study.study_files import load_study
from tests.test_study import changed
from tests.tiny import CHAT, tiny_tokenizer
from tests.tiny_study import EARLIER_DEMO
from tests.tiny_study import make_study as make_tiny_study

SENSITIVE = ("prompts.sensitivity=true", 'measurements=["by-layer", "refusal-probability"]', 'judges=["prefix"]')


def text_of(name, edit, system=None):
    found = edited(FormatSpec(name, system), edit)
    return None if found is None else find_system_format(found.spec, found.system)


# The texts.


def test_each_edit_to_the_letter():
    assert text_of("pythia", "spaces") == "User:  {instruction}\nAssistant:"
    assert text_of("pythia", "newline-before") == "User: \n{instruction}\nAssistant:"
    assert text_of("pythia", "newline") == "User: {instruction}\n\nAssistant:"
    assert text_of("pythia", "capitals") == "USER: {instruction}\nASSISTANT:"
    assert text_of("user-assistant", "capitals") == "user: {instruction}\nassistant:"
    assert text_of("gemma", "capitals") == "<start_of_turn>USER\n{instruction}<end_of_turn>\n<start_of_turn>MODEL\n"
    assert text_of("chatml", "system") == f"<|im_start|>system\n{SYSTEM_SENTENCE}<|im_end|>\n{FORMATS['chatml']}"
    assert text_of("chatml", "empty-system") == f"<|im_start|>system\n<|im_end|>\n{FORMATS['chatml']}"
    assert text_of("chatml", "newline", "Be brief.").startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{instruc"
    )
    # Words of Vicuna's sentence are no role words, and taking the sentence out is its only edit of the system turn.
    assert text_of("vicuna", "capitals").endswith("to the user's questions.\nuser: {instruction}\nassistant:")
    assert text_of("vicuna", "empty-system") == FORMATS["user-assistant"]


@pytest.mark.parametrize(
    ("name", "system", "missing"),
    [
        ("chatml", None, []),
        ("chatml", "Be brief.", ["system"]),
        ("vicuna", None, ["system"]),
        ("pythia", None, ["system", "empty-system"]),
        ("{instruction}", None, ["capitals", "system", "empty-system"]),
        ("native", None, ["capitals", "system", "empty-system"]),
    ],
)
def test_an_edit_that_changes_nothing_or_cannot_be_made_is_missing(name, system, missing):
    assert missing_edits(FormatSpec(name, system)) == missing


@pytest.mark.parametrize("name", FORMATS)
def test_every_edit_keeps_the_instruction_and_changes_the_text(name):
    texts = [FORMATS[name], *(text for edit in EDITS if (text := text_of(name, edit)) is not None)]
    assert len(set(texts)) == len(texts) >= 5
    assert all(text.count("{instruction}") == 1 for text in texts)


def test_a_chat_template_is_edited_next_to_the_instruction():
    checkpoint = SimpleNamespace(tokenizer=tiny_tokenizer(chat_template=CHAT))
    plain = prompt_format("native", checkpoint).template
    for edit, text in (("spaces", "  {instruction}"), ("newline-before", "\n{instruction}"), ("newline", "{instruction}\n")):
        found = edited(FormatSpec("native"), edit)
        made = prompt_format(found.spec, checkpoint, name=f"native~{edit}")
        assert text in made.template
        assert made.template != plain
        assert "".join(made.template.split()) == "".join(plain.split())
    with pytest.raises(InputError, match="did you mean 'newline'"):
        edited(FormatSpec("chatml"), "newlin")


def test_names_show_the_edit():
    assert format_name("chatml~newline") == "chatml~newline"
    assert format_name("my.module:Format~spaces").endswith("~spaces")


# The arms.


def study(*, sensitivity=True):
    checkpoints = {
        "base": {"model": "a/base", "prompts": ["plain", "chatml"]},
        "chat": {"model": "a/chat"},
    }
    prompts = {"sensitivity": sensitivity, "plain": "Question: {instruction}\nAnswer:"}
    return make_study(changed(checkpoints=checkpoints, prompts=prompts, interventions=[{"kind": "ablate"}]))


def test_sensitivity_is_written_out_as_arms():
    found = study()
    plain = [f"plain~{edit}" for edit in ("spaces", "newline-before", "newline", "capitals")]
    chatml = [f"chatml~{edit}" for edit in EDITS]
    assert found.checkpoints["base"].prompts == ["plain", "chatml", *plain, *chatml]
    assert found.checkpoints["chat"].prompts == ["native", "native~spaces", "native~newline-before", "native~newline"]
    assert list(found.prompts) == ["plain"]
    assert make_study(tomllib.loads(found.toml())) == found
    specs = {arm.name: arm.spec for arm in make_plan(found).arms}
    assert specs["base/plain~newline"] == "Question: {instruction}\n\nAnswer:"
    off = study(sensitivity=False)
    assert off.checkpoints["base"].prompts == ["plain", "chatml"]


def test_arms_with_a_small_edit_are_only_asked_without_an_edit_of_the_stream():
    found, off = study(), study(sensitivity=False)
    plan, plain = make_plan(found), make_plan(off)
    spellings = [cell for cell in plan.cells if cell.target.spelling]
    assert len(spellings) == (4 + 6 + 3) * 2
    assert all(cell.intervention is None for cell in spellings)
    assert [cell.key for cell in plan.cells if not cell.target.spelling] == [cell.key for cell in plain.cells]
    assert found.controls == off.controls
    # The directions that an edit may use have the names and controls that they had.
    assert [one for one in plan.directions if not one.arm.spelling] == list(plain.directions)
    assert {one.name for one in plan.directions if one.arm.name == "chat/native~newline"} == {"chat.native.newline"}
    with pytest.raises(InputError, match="names 'base/chatml~newline'; did you mean 'base/chatml'"):
        make_study({**found.model_dump(), "interventions": [{"kind": "ablate", "targets": ["base/chatml~newline"]}]})


def test_one_edit_may_be_named_alone_and_decides_about_results():
    def digest(*prompts):
        return make_study(changed(checkpoints={"base": {"model": "a/b", "prompts": list(prompts)}})).digest

    assert load_study(EARLIER_DEMO).digest == "77457cbd1b4ec6a2"
    assert len({digest("chatml"), digest("chatml", "chatml~newline"), digest("chatml", "chatml~spaces")}) == 3
    with pytest.raises(InputError, match="'newlin' is not a small edit of a prompt format; did you mean 'newline'"):
        make_plan(make_study(changed(checkpoints={"base": {"model": "a/b", "prompts": ["chatml~newlin"]}})))
    with pytest.raises(InputError, match="'pythia' cannot have the small edit 'system'; use one of pythia~spaces"):
        make_plan(make_study(changed(checkpoints={"base": {"model": "a/b", "prompts": ["pythia~system"]}})))


# The spread.


def test_a_spread_is_computed_from_paired_verdicts():
    prompts = {
        "chatml": [1, 1, 0, 0, 0, 0, 0, 0],
        "chatml~newline": [1, 1, 1, 1, 1, 1, 0, 0],
        "chatml~capitals": [1, 0, 0, 0, 0, 0, 0, 0],
    }
    cells = [
        Cell(key=prompt, target="base", prompt=prompt, instructions="harmful", intervention="none")
        for prompt in (*prompts, "gemma")
    ]
    refusals = {(key, "prefix"): dict(enumerate(map(bool, each))) for key, each in prompts.items()}
    refusals["gemma", "prefix"] = {0: True}
    (found,) = prompt_spreads(cells, refusals, "prefix", cosines={("base", "chatml~newline"): 0.4})
    assert [(one.edit, one.rate) for one in found.spellings] == [("", 0.25), ("newline", 0.75), ("capitals", 0.125)]
    assert [one.cosine for one in found.spellings] == [None, 0.4, None]
    assert found.spellings[1].ci95 == wilson(6, 8)
    assert (found.lowest, found.highest, found.difference) == (2, 1, 0.625)
    # Three pairs of spellings could have been the largest.
    low, high = (list(map(bool, prompts[f"chatml~{edit}"])) for edit in ("capitals", "newline"))
    assert found.ci95 == paired_change(low, high).interval(1 - 0.05 / 3)
    (said,) = spelling_answers([found])
    assert 'The spelling of the prompt "chatml" alone moves the rate of refusals of "base"' in said.text
    assert "from 12 % (capitals) to 75 % (newline), over 3 spellings (largest paired difference +62 points [" in said.text


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return make_tiny_study(tmp_path_factory.mktemp("spelling"))


@pytest.fixture(scope="module")
def done(file):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "report", Run.judge_stored)
        run(load_study(file, SENSITIVE), file.parent / "run").close()
    return file.parent / "run"


@pytest.mark.soak
def test_a_run_shows_the_spread_and_no_row_more(done):
    with demur.open_run(done) as opened:
        opened.report(figures="none")
        found = opened.summary_record()
    assert {(one.checkpoint, one.prompt) for one in found.spellings} == {("base", "user-assistant"), ("chat", "native")}
    assert {one.outcome for one in found.spellings} == {"verdict", "probability"}
    assert len(found.spellings) == 2 * 2 * 2
    assert not any("~" in cell.prompt for cell in found.cells)
    assert not any("~" in str(one.prompt) for one in found.directions)
    assert not any("~" in entry.target for entry in entries(found))
    assert [len(one.spellings) for one in found.spellings if one.checkpoint == "base"] == [5] * 4
    assert any("small edit system or empty-system" in said for said in found.warnings)
    assert any("chat template" in said for said in found.warnings)
    assert sum("The spelling of the prompt" in one.text for one in found.answers) == 4
    assert "prompt-spelling" in (done / "report.html").read_text(encoding="utf-8")
    store, by_key = Store.open(done), {}
    for row in store.verdicts():
        by_key.setdefault(row.cell, []).append(row.refusal)
    for one in found.spellings:
        if one.outcome == "verdict":
            assert [each.rate for each in one.spellings] == [statistics.fmean(by_key[each.key]) for each in one.spellings]
    cosine = found.spellings[0].spellings[1].cosine
    vectors = [store.direction(name).vector for name in ("base", "base.user-assistant.spaces")]
    assert cosine == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)


def test_the_plan_tells_what_small_edits_cost(file):
    said = " ".join(" ".join(plan_lines(look_ahead(load_study(file, SENSITIVE)))).split())
    assert "7 arms with a small edit of their prompt" in said
    assert "14 cells, 42 completions" in said
    assert "has no arm with the small edit" in said


@pytest.mark.soak
def test_a_run_grows_by_small_edits_and_reuses_everything(file, done, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "report", Run.judge_stored)
    out, told = tmp_path / "run", []
    run(load_study(file, SENSITIVE[1:]), out).close()
    run(load_study(file, SENSITIVE), out, tell=told.append).close()
    assert "it reuses 22 of 36 cells" in told[0]
    with demur.open_run(out) as grown, demur.open_run(done) as whole:
        assert grown.summary_record().spellings == whole.summary_record().spellings


def test_what_is_left_out_is_told_before_a_run(file):
    ready = check(make_plan(load_study(file, SENSITIVE)))
    assert any(said.startswith("The prompt format native has no arm with the small edit capitals") for said in ready.warnings)


def test_a_format_that_a_run_names_otherwise_keeps_its_edits_and_arms():
    text = "Question: {instruction}\nAnswer:"
    stored = {"prompts": {"older": text}, "checkpoints": {"base": {"model": "a/b", "prompts": ["older"]}}}
    mine = {
        "prompts": {"plain": text},
        "checkpoints": {"base": {"model": "a/b", "prompts": ["plain", "plain~newline"]}},
        "interventions": [{"kind": "ablate", "sources": ["base/plain", "base"]}],
    }
    found, renamed = named_as_in_run(mine, stored)
    assert renamed == {"plain": "older"}
    assert found["checkpoints"]["base"]["prompts"] == ["older", "older~newline"]
    assert found["interventions"][0]["sources"] == ["base/older", "base"]
