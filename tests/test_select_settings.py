"""Settings with the value "select": what can be open, and what is chosen from measured effects."""

import pytest
import torch

import demur
from demur.analysis.selection_record import SelectedPlace, SelectionRecord
from demur.core.errors import InputError, WorkError
from demur.engine.checkpoints import wrap
from demur.inputs.prompts import prompt_format
from demur.interventions.intervention import ablate, add
from demur.measurements.divergence import divergence, refusal_log_odds
from demur.measurements.selection.candidates import candidate_directions
from demur.measurements.selection.effect import (
    PlaceEffect,
    Trial,
    baseline,
    place_effects,
    rows_of_rounds,
)
from demur.measurements.selection.trial_outcomes import Outcome
from demur.runs.selecting.place_choice import Tried, chosen_doses, chosen_place, joint_effects, notes_on
from demur.runs.store import Store
from demur.study.plan import make_plan
from demur.study.selected_settings import check_open_keys, doses_of, for_planning, open_keys, with_selected
from demur.study.study_files import load_study
from tests.reference import ablated, leave, run_stream, shifted
from tests.tiny import HARMFUL, HARMLESS, tiny_model, tiny_tokenizer
from tests.tiny_study import EARLIER_DEMO, make_study

SELECT = ["direction.layers=select", "interventions.1.coefficient=select"]
TOKENS = (39, 40)


def select(*more):
    return load_study(EARLIER_DEMO, [*SELECT, *more])


def test_open_keys_are_named_in_the_order_of_the_study():
    assert open_keys(load_study(EARLIER_DEMO)) == ()
    assert open_keys(select("direction.position=select")) == (
        "direction.layers",
        "direction.position",
        "interventions.1.coefficient",
    )


def test_a_study_that_selects_has_a_digest_of_its_own_and_the_others_keep_theirs():
    assert select().digest != load_study(EARLIER_DEMO).digest
    assert select("selection.instructions=12").digest != select().digest
    # Nothing is selected in this study, so the table changes nothing.
    assert load_study(EARLIER_DEMO, ["selection.instructions=12"]).digest == load_study(EARLIER_DEMO).digest
    assert select("selection.kl=0.1").digest != select().digest
    assert select("selection.doses=[1.0, 2.0]").digest == select("selection.doses=[2.0, 1.0]").digest != select().digest
    assert select().deciding()["direction.layers"] == "select"


def test_selected_values_replace_the_open_keys_only():
    study = with_selected(select(), layer=9, position=-3, coefficients={1: 1.5})
    assert study.direction.layers == [9]
    assert study.direction.position == -1  # it was given
    assert [spec.coefficient for spec in study.interventions] == [None, 1.5]
    assert study.digest == load_study(EARLIER_DEMO, ["direction.layers=9", "interventions.1.coefficient=1.5"]).digest


def test_a_plan_counts_the_cells_before_the_selection():
    assert len(make_plan(for_planning(select())).cells) == len(make_plan(load_study(EARLIER_DEMO)).cells)
    given = load_study(EARLIER_DEMO)
    assert for_planning(given) is given


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["interventions.1.unit=unit"], "selection.doses"),
        (["direction.layers=[3, 4]"], "needs one layer"),
        (["split=validation"], "validation"),
        (["direction.site=resid_post"], "resid_pre"),
        (["interventions=[]"], "no intervention"),
    ],
)
def test_what_cannot_be_selected_is_refused(settings, words):
    study = load_study(EARLIER_DEMO, ["direction.layers=select", *settings])
    if words in ("selection.doses", "needs one layer"):
        study = load_study(EARLIER_DEMO, [*SELECT, *settings])
    with pytest.raises(InputError, match=words):
        check_open_keys(study)


def test_doses_are_those_of_the_unit_or_of_the_study():
    assert doses_of(select(), 1) == (0.5, 1.0, 1.5, 2.0, 3.0)
    assert doses_of(select("selection.doses=[4.0, 1.0]"), 1) == (1.0, 4.0)
    assert doses_of(load_study(EARLIER_DEMO), 1) == (2.0,)


@pytest.fixture(scope="module")
def ready():
    checkpoint = wrap(tiny_model("llama", num_hidden_layers=5), tiny_tokenizer(), name="tiny")
    prompt = prompt_format("USER {instruction} ASSISTANT :", checkpoint)
    return checkpoint, prompt, candidate_directions(checkpoint, HARMFUL[:5], HARMLESS[:5], prompt, positions=[-1])


TRIALS = (
    Trial(ablate, "harmful", -1, keeps_harmless=True),
    Trial(lambda direction: add(direction, 1.0, unit="raw"), "harmless", 1, keeps_harmless=False),
)


def test_effects_equal_a_naive_sweep(ready):
    checkpoint, prompt, candidates = ready
    # The order of the sides makes the gap of this random model positive.
    sides = {"harmful": HARMFUL[5:], "harmless": HARMLESS[5:]}
    before = baseline(checkpoint, sides, prompt, TOKENS)
    if before.gap < 0:
        sides = {"harmful": sides["harmless"], "harmless": sides["harmful"]}
        before = baseline(checkpoint, sides, prompt, TOKENS)

    def logits(text, edit=leave):
        return run_stream(checkpoint.model, torch.tensor(prompt.encode([text])), edit)[1][:, -1]

    def odds(text, edit=leave):
        return float(refusal_log_odds(logits(text, edit), TOKENS)[0])

    found = place_effects(checkpoint, candidates, TRIALS, sides, prompt, TOKENS, kl_most=float("inf"))
    assert set(found) == set(candidates.directions)
    for (position, layer), effect in found.items():
        direction = candidates.directions[position, layer]
        raw = direction.vector * direction.raw_norm
        shares, changes = [], []
        for one in sides["harmful"]:
            shares.append((odds(one) - odds(one, ablated(direction.vector))) / before.gap)
        for one in sides["harmless"]:
            shares.append((odds(one, shifted(raw, layer, ("resid_pre",))) - odds(one)) / before.gap)
            changes.append(float(divergence(logits(one), logits(one, ablated(direction.vector)))[0]))
        clipped = [min(1.0, max(-1.0, share)) for share in shares]
        assert effect.share == pytest.approx(sum(clipped) / len(clipped), abs=1e-3)
        assert effect.kl == pytest.approx(sum(changes) / len(changes), abs=1e-3)


def test_progress_adds_up_and_damaging_places_are_not_measured_further(ready):
    checkpoint, prompt, candidates = ready
    texts = [f"{one} {more}" for one in (*HARMFUL, *HARMLESS) for more in ("now", "please")]
    sides = {"harmful": texts[:20], "harmless": texts[12:]}
    if baseline(checkpoint, sides, prompt, TOKENS).gap < 0:
        sides = {"harmful": sides["harmless"], "harmless": sides["harmful"]}
    done: list[int] = []
    free = place_effects(
        checkpoint, candidates, TRIALS, sides, prompt, TOKENS, kl_most=float("inf"), finalists=1, progress=done.append
    )
    n = min(map(len, sides.values()))
    assert sum(done) == rows_of_rounds(len(candidates.directions), n, TRIALS, 1)
    assert max(effect.n for effect in free.values()) == n > min(effect.n for effect in free.values()) == 8
    done.clear()
    bounded = place_effects(checkpoint, candidates, TRIALS, sides, prompt, TOKENS, kl_most=0.0, finalists=1, progress=done.append)
    assert {effect.n for effect in bounded.values()} == {8}
    assert sum(done) == rows_of_rounds(len(candidates.directions), n, TRIALS, 1)


def test_a_checkpoint_that_refuses_harmless_instructions_more_cannot_decide(ready):
    checkpoint, prompt, candidates = ready
    sides = {"harmful": HARMFUL[5:], "harmless": HARMLESS[5:]}
    if baseline(checkpoint, sides, prompt, TOKENS).gap > 0:
        sides = {"harmful": sides["harmless"], "harmless": sides["harmful"]}
    with pytest.raises(WorkError, match="no edit can show an effect"):
        place_effects(checkpoint, candidates, TRIALS, sides, prompt, TOKENS)


def outcome(refusals, broken=0.0):
    return Outcome(refusals, broken, 20)


def tried(*, layers, added=(0.2, 0.9, 1.0, 1.0, 1.0), broken=(0.0, 0.0, 0.0, 0.0, 0.5)):
    """An arm that refuses 90 % of harmful and 10 % of harmless instructions; `layers` gives what ablation leaves at each."""
    edited = {}
    for layer, (left, lost) in layers.items():
        edited[(-1, layer), 0, 0.0] = outcome(left, lost)
        for dose, refused, ruined in zip((0.5, 1.0, 1.5, 2.0, 3.0), added, broken, strict=True):
            edited[(-1, layer), 1, dose] = outcome(refused, ruined)
    return Tried({"harmful": outcome(0.9), "harmless": outcome(0.1)}, edited)


def test_the_place_with_the_largest_change_without_damage_is_chosen():
    joint = joint_effects(
        [{(-1, layer): PlaceEffect(share, 20, kl) for layer, share, kl in ((5, 0.9, 0.1), (6, 0.8, 0.1), (7, 0.7, 2.0))}], 0.5
    )
    assert [(one.place, bool(one.dropped)) for one in joint] == [((-1, 5), False), ((-1, 6), False), ((-1, 7), True)]
    arm = tried(layers={5: (0.0, 0.4), 6: (0.2, 0.0)})
    places = chosen_place(select(), joint, [(-1, 5), (-1, 6)], [arm])
    assert (places[0].layer, places[0].dropped) == (6, "")
    assert places[0].change == pytest.approx(((0.9 - 0.2) + (1.0 - 0.1)) / 2)
    reasons = {place.layer: place.dropped for place in places[1:]}
    assert "40 points more completions are broken" in reasons[5]
    assert "2.00 nats" in reasons[7]


def test_the_smallest_sufficient_dose_is_chosen_and_broken_texts_do_not_count():
    arm = tried(layers={6: (0.2, 0.0)})
    doses, coefficients = chosen_doses(select(), (-1, 6), [arm])
    assert coefficients == {1: 1.0}  # 80 of 90 points, at least four fifths of the largest change
    assert [one.coefficient for one in doses] == [0.5, 1.0, 1.5, 2.0, 3.0]
    late = tried(layers={6: (0.2, 0.0)}, added=(0.1, 0.1, 0.2, 0.9, 1.0))
    assert chosen_doses(select(), (-1, 6), [late])[1] == {1: 2.0}


def test_a_place_counts_with_the_doses_that_were_tried_there():
    arm = tried(layers={5: (0.2, 0.0), 6: (0.2, 0.0)})
    for dose in (0.5, 1.0, 2.0, 3.0):
        del arm.edited[(-1, 5), 1, dose]
    joint = joint_effects([{(-1, layer): PlaceEffect(0.9, 20, 0.1) for layer in (5, 6)}], 0.5)
    places = chosen_place(select(), joint, [(-1, 5), (-1, 6)], [arm])
    assert [place.change for place in places] == [pytest.approx(0.8)] * 2
    assert [one.coefficient for one in chosen_doses(select(), (-1, 5), [arm])[0]] == [1.5]


def test_flat_early_and_useless_selections_are_told():
    arm = tried(layers={1: (0.2, 0.0), 2: (0.22, 0.0)}, added=(0.1,) * 5)
    joint = joint_effects([{(-1, layer): PlaceEffect(0.9, 20, 0.1) for layer in (1, 2)}], 0.5)
    places = chosen_place(select(), joint, [(-1, 1), (-1, 2)], [arm])
    doses, coefficients = chosen_doses(select(), (-1, 1), [arm])
    notes = list(notes_on(select(), places, doses, coefficients, 30))
    assert any("very early" in note for note in notes)
    assert any("flat" in note for note in notes)
    assert any("No dose of add" in note for note in notes)


def test_arms_without_a_common_place_are_refused():
    with pytest.raises(WorkError, match="no position and layer in common"):
        joint_effects([{(-1, 1): PlaceEffect(1.0, 8)}, {(-1, 2): PlaceEffect(1.0, 8)}], 0.5)


def test_a_stored_selection_is_used_again_and_belongs_to_its_weights(tmp_path):
    """A run that selected its settings with other weights is refused; with the same weights it uses the stored choice."""
    text = make_study(tmp_path).read_text().replace("layers = [1]", 'layers = "select"').replace("= 2.0", '= "select"')
    (tmp_path / "select.toml").write_text(text)
    study = load_study(tmp_path / "select.toml")
    plain = demur.run(load_study(tmp_path / "study.toml"), tmp_path / "plain")
    weights = {name: facts.fingerprint for name, facts in plain.manifest().checkpoints.items()}
    place = SelectedPlace(position=-1, layer=1, share=1.0, n=2)
    kept = SelectionRecord(
        judge="prefix", instructions=2, position=-1, layer=1, coefficients={1: 2.0}, places=(place,), fingerprints=weights
    )

    def begun(folder, record):
        store = Store.create(folder, study.digest, study.toml())
        store.remember("deciding", study.deciding())
        store.remember_selection(record)
        store.close()
        return folder

    finished = demur.run(study, begun(tmp_path / "same", kept))
    rates = ["target", "instructions", "intervention", "layer", "coefficient", "rate"]
    assert finished.cells()[rates].equals(plain.cells()[rates])
    assert finished.summary()["selection"]["layer"] == 1
    other = kept.model_copy(update={"fingerprints": {**weights, "chat": weights["base"]}})
    with pytest.raises(InputError, match="selected its settings"):
        demur.run(study, begun(tmp_path / "other", other))
