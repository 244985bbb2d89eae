"""The measurement `coherence` and its gate: losses against plain torch, broken text, and claims that rest on it."""

import math

import numpy
import pytest
import torch

import demur
from demur.analysis.claims import claims
from demur.analysis.doses.coherence_gate import MeasuredText, broken, coherence, gate
from demur.analysis.edit_tests import edit_tests
from demur.analysis.rates import comparisons, judged_cells
from demur.core.effects.mean_change import mean_change
from demur.core.errors import InputError
from demur.interventions.edit_kind import edit_kind, words_of
from demur.measurements.divergence import divergence
from demur.measurements.measurement import CellCompletion, reference_of
from demur.measurements.text_coherence import CoherenceSettings, TextCoherence
from demur.runs.extracting.cell_needs import cell_key
from demur.runs.jobs import MeasureJob, pending_jobs
from demur.runs.store import Store
from demur.runs.stored_records import cell_of
from demur.study.plan import make_plan
from demur.study.planned_tasks import planned_tasks
from demur.study.preflight import check
from demur.study.spec import make_study as study_of
from tests.test_summary import CELLS, cell, fivefold, verdicts
from tests.tiny_study import contents, make_study

WORDS = words_of({name: edit_kind(name) for name in ("ablate", "add")})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    given = demur.load_study(make_study(tmp_path_factory.mktemp("coherence"), max_new_tokens=5))
    return study_of({**given.model_dump(mode="json"), "measurements": ["coherence"]})


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    demur.run(study, folder)
    return folder


def test_losses_are_those_of_plain_torch_under_the_first_checkpoint(study, folder):
    store = Store.open(folder)
    found = {one.subject: one.record for one in store.measurements()}
    assert set(found) == {one.key for one in store.cells()}
    base = demur.load_checkpoint(study.checkpoints["base"].model, name="base")
    prompt = demur.prompt_format("user-assistant", base)
    seen = 0
    for one in (one for one in store.cells() if one.target == "chat"):
        record = found[one.key]
        # chat has another format than base, so base reads its completions under its own format.
        assert record.facts["reference"] == "base/user-assistant"
        for place, row in enumerate(store.completions(one.key)):
            before = prompt.encode([row.instruction])[0]
            ids = torch.tensor([[*before, *row.token_ids]])
            with torch.inference_mode():
                logits = base.engine.model(ids).logits[0, len(before) - 1 : -1].double()
            alone = torch.nn.functional.cross_entropy(logits, torch.tensor(row.token_ids))
            assert record.arrays["loss"][place] == pytest.approx(float(alone), abs=1e-5)
            assert record.arrays["tokens"][place] == len(row.token_ids)
            seen += 1
    assert seen > 20
    store.close()


def test_the_divergence_is_that_of_the_target_s_next_token_after_harmless_prompts(study, folder):
    store = Store.open(folder)
    found = {one.subject: one.record.arrays for one in store.measurements()}
    chat = demur.load_checkpoint(study.checkpoints["chat"].model, name="chat")
    prompt = demur.prompt_format("native", chat)
    harmless = [row.instruction for row in store.completions("chat/native|harmless|none")]
    ids = [torch.tensor([one]) for one in prompt.encode(harmless)]
    (ablated,) = [one for one in store.cells() if one.target == "chat" and one.action == "ablate" and one.source == "base"]
    edit = demur.ablate(store.direction(ablated.direction))
    for place, one in enumerate(ids):
        with torch.inference_mode():
            before = chat.engine.model(one).logits[0, -1:]
            with demur.steer(chat, edit):
                after = chat.engine.model(one).logits[0, -1:]
        assert found[ablated.key]["divergence"][place] == pytest.approx(float(divergence(before, after)), abs=1e-5)
    assert found[ablated.key]["divergence"].max() > 1e-3
    assert "divergence" not in found["chat/native|harmless|none"]
    store.close()


def test_the_summary_of_a_run_has_each_edited_cell(folder):
    with demur.open_run(folder) as run:
        summary = run.summary()
    edited = [one["key"] for one in summary["cells"] if one["intervention"] != "none" and one["judge"] == "prefix"]
    assert [one["key"] for one in summary["doses"]["coherence"]] == edited
    assert {one["coherent"] for one in summary["doses"]["coherence"]} <= {None, False}  # three instructions say little of a loss


def test_it_waits_for_the_cells_and_loads_the_reference(study, folder, tmp_path):
    ready, store = check(make_plan(study)), Store.open(folder)
    assert pending_jobs(ready, store) == []
    store.close()
    demur.run(study.model_copy(update={"measurements": []}), tmp_path / "run")
    store = Store.open(tmp_path / "run")
    jobs = [job for job in pending_jobs(ready, store) if isinstance(job, MeasureJob)]
    assert [(job.arms, job.weights) for job in jobs] == [
        (("base/user-assistant",), ("base",)),
        (("chat/native", "base/user-assistant"), ("chat", "base")),
    ]
    assert {cell_key(key) for key, _ in jobs[1].cells} <= set(jobs[1].needs)
    store.close()
    demur.run(study, tmp_path / "run")
    assert contents(tmp_path / "run") == contents(folder)
    weights = {one.key: one.weights for one in planned_tasks(make_plan(study))}
    assert (weights["measure base"], weights["measure chat"]) == (("base",), ("chat", "base"))


def test_an_unknown_reference_is_refused_with_the_nearest_name(study):
    asked = [{"name": "coherence", "reference": "chatt"}]
    with pytest.raises(InputError, match=r"reference 'chatt'; did you mean 'chat'\?"):
        study_of({**study.model_dump(mode="json"), "measurements": asked})
    assert reference_of(TextCoherence(), CoherenceSettings(reference="chat"), ["base", "chat"]) == "chat"


def test_a_completion_without_tokens_has_no_loss_and_equal_ones_are_scored_once(study, monkeypatch):
    from demur.judges.judge import Judged
    from demur.measurements import cross_entropy
    from demur.measurements.measurement import ArmSubject, CellSubject

    base = demur.load_checkpoint(study.checkpoints["base"].model, name="base")
    prompt = demur.prompt_format("user-assistant", base)
    arm = ArmSubject("base/user-assistant", base, prompt, {}, {"harmless": ("b",)}, "resid_pre", -1, (1,))
    said = [CellCompletion(Judged("a b", "ask"), (5, 6)), CellCompletion(Judged("", "ask"), ())]
    rows = []
    scored = cross_entropy.row_losses
    monkeypatch.setattr(cross_entropy, "row_losses", lambda one, given, progress: rows.extend(given) or scored(one, given))
    subject = CellSubject("x", arm, None, ("ask",) * 3, written=(said[0], said[1], said[0]))
    record = TextCoherence().measure(subject, CoherenceSettings())
    assert len(rows) == 1
    losses = record.arrays["loss"]
    assert math.isnan(losses[1])
    assert losses[0] == losses[2]
    assert record.arrays["degenerate"].tolist() == [0, 1, 0]
    assert TextCoherence().summary(record)["loss"] == losses[0]


def test_texts_of_another_vocabulary_are_divided_anew(study):
    from demur.judges.judge import Judged
    from demur.measurements.measurement import ArmSubject
    from demur.measurements.text_coherence import _losses
    from tests.tiny import tiny_tokenizer

    base = demur.load_checkpoint(study.checkpoints["base"].model, name="base")
    prompt = demur.prompt_format("user-assistant", base)
    other = tiny_tokenizer()
    other.add_tokens(["another"])
    arms = [
        ArmSubject("x", base, each, {}, {}, "resid_pre", -1, (1,))
        for each in (demur.prompt_format("user-assistant", type("T", (), {"tokenizer": other})()), prompt)
    ]
    one = CellCompletion(Judged("I can help", "ask"), (1, 1, 1, 1, 1, 1, 1))
    loss, tokens = _losses([one], *arms)[one]
    before, after = prompt.continued("ask", "I can help")
    assert tokens == len(after) < 7
    (alone,) = demur.completion_losses(base, [("ask", "I can help")], prompt)
    assert loss / tokens == pytest.approx(alone.mean)
    assert before


def text(loss, echo=0, degenerate=0, n=50, reference="after/chatml", divergence=()):
    flags = [tuple(place < count for place in range(n)) for count in (echo, degenerate)]
    values = (loss,) * n if isinstance(loss, float) else tuple(loss)
    return MeasuredText(reference, values, *flags, divergence)


def test_refusals_are_left_out_and_the_change_is_paired():
    cells = [cell_of(each) for each in CELLS]
    before = [0.1] * 40 + [1.0, 1.2] * 5
    after = [9.0] * 30 + [1.1] * 10 + [1.2, 1.3] * 5
    found, _ = coherence(
        cells, {"none": text(before), "own": text(after), "null": text(after)}, verdicts(none=40, own=2, null=45), "prefix"
    )
    # Only the last ten instructions are refused in neither cell.
    assert (found.key, found.compared_with, found.pairs) == ("own", "target", 10)
    assert found.loss_change == pytest.approx(0.15)
    differences = numpy.array([0.2, 0.1] * 5)
    error = differences.std(ddof=1) / math.sqrt(10)
    assert found.loss_ci95 == pytest.approx((0.15 - 2.2622 * error, 0.15 + 2.2622 * error), abs=1e-4)
    assert found.coherent is True


def test_the_reference_is_compared_where_the_target_refuses_too_much():
    cells = [*CELLS, cell("parent", target="before")]
    texts = {"none": text(0.1), "own": text(1.6, reference="before/chatml"), "parent": text(0.9)}
    refused = verdicts(none=48, own=2, null=39, parent=3)
    (found,) = coherence([cell_of(each) for each in cells], texts, refused, "prefix")
    assert (found.compared_with, found.pairs) == ("reference", 47)
    assert found.loss_change == pytest.approx(0.7)
    assert found.coherent is False
    # Without the reference's own completions nothing is known, and this is said.
    (found,) = coherence([cell_of(each) for each in CELLS], texts, refused, "prefix")
    assert (found.coherent, found.compared_with, found.loss_change) == (None, "", None)
    assert "on 2 instructions neither answer is a refusal" in found.reason


def test_the_gate_has_two_limits():
    assert gate(0.49, 0.09) == (True, "")
    assert gate(0.5, 0.0) == (False, "the text is broken: its loss is 0.50 nats a token higher")
    assert gate(0.0, 0.1)[0] is False
    assert "10 points more" in gate(0.0, 0.1)[1]
    assert gate(None, 0.2)[0] is False
    assert gate(None, 0.0)[0] is None
    assert gate(0.0, None)[0] is None


def claim_with(loss, shapeless):
    facts, refused = fivefold(CELLS, verdicts(none=40, own=0, null=39))
    cells = [cell_of(each) for each in facts]
    texts = {"none": text(1.0), "own": text(loss, degenerate=shapeless)}
    found = coherence(cells, texts, refused, "prefix")
    judged, compared = judged_cells(cells, refused, ["prefix"]), comparisons(cells, refused, ["prefix"])
    tests = edit_tests(judged, compared, refused, "prefix", broken=broken(found))
    return next(one for one in claims(judged, tests, "prefix", WORDS) if one.id == "effect: own")


def test_a_text_that_is_all_broken_never_shows_lost_refusals():
    good = claim_with(1.1, 0)
    assert (good.verdict, good.reason) == ("supported", "")
    bad = claim_with(1.1, 50)
    assert (bad.verdict, bad.reason, bad.shown) == ("not shown", "broken text", False)
    assert "The text is broken: 100 points more of the completions only repeat themselves or the instruction." in bad.text
    assert bad.text.count("broken") == 1
    worse = claim_with(3.0, 0)
    assert "The text is broken: its loss is 2.00 nats a token higher." in worse.text
    assert good.p == worse.p  # the change itself is the same


def test_a_mean_change_counts_groups():
    alone = mean_change([0.0] * 8, [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    grouped = mean_change([0.0] * 8, [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0], [0, 0, 1, 1, 2, 2, 3, 3])
    assert alone.change == grouped.change == 0.5
    assert grouped.ci95[0] < alone.ci95[0] < 0.5 < alone.ci95[1] < grouped.ci95[1]
    assert mean_change([1.0, 2.0], [2.0, 3.0], [0, 0]).ci95 is None
    with pytest.raises(InputError, match="as many numbers"):
        mean_change([1.0], [])
