"""A selection that was stopped goes on in its run folder, repeats no finished step, and chooses what it would have chosen."""

import pytest

from demur.core.errors import WorkError
from demur.measurements.refusal_tokens import RefusalTokens
from demur.measurements.selection.finished_steps import FinishedSteps
from demur.runs.selecting import effect_selection, place_choice
from demur.runs.selecting.effect_selection import select_by_effect
from demur.runs.selecting.selection_store import STEPS, selected_study
from demur.runs.store import Store
from demur.study.plan import make_plan
from demur.study.preflight import check
from demur.study.selected_settings import for_planning
from demur.study.study_files import load_study
from tests.tiny import tiny_model
from tests.tiny_study import make_study


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study that selects, on random models: whatever they write, they decide, and every place is good enough."""
    monkeypatch.setattr(effect_selection, "LEAST_REFUSALS", 0.0)
    for name, value in (("LEAST_CHANGE", -1.0), ("BROKEN_MORE", 2.0)):
        monkeypatch.setattr(place_choice, name, value)
    tokens = RefusalTokens((5, 7), ("a", "b"), 1.0, 1.0, 8, 16)
    monkeypatch.setattr(effect_selection, "find_refusal_tokens", lambda *_, **__: tokens)
    monkeypatch.setattr("demur.measurements.selection.effect.Baseline.gap", property(lambda _: 1.0))
    monkeypatch.setattr("demur.measurements.selection.effect.FIRST_ROUND", 2)  # of three instructions, so there are two rounds
    text = make_study(tmp_path).read_text().replace("layers = [1]", 'layers = "select"').replace("= 2.0", '= "select"')
    for label in ("harmful", "harmless"):
        rows = (tmp_path / f"{label}.jsonl").read_text().splitlines()
        more = [rows[4].replace('"instruction": "', f'"instruction": "{n} ') for n in range(2)]
        (tmp_path / f"{label}.jsonl").write_text("\n".join([*rows, *more]))
    for name, seed in (("base", 1), ("chat", 2)):
        tiny_model("llama", seed=seed, num_hidden_layers=6).save_pretrained(tmp_path / name)
    table = "[selection]\ninstructions = 3\nkl = 100.0\nlayers = [1, 2, 3, 4]\ndoses = [0.5, 1.0]\n"
    (tmp_path / "select.toml").write_text(f"{text}\n{table}")
    return load_study(tmp_path / "select.toml")


def selected(study, steps):
    return select_by_effect(study, check(make_plan(for_planning(study))), steps=steps)


@pytest.mark.soak
def test_a_selection_stopped_after_any_step_ends_as_one_that_was_not(study):
    whole = FinishedSteps()
    record = selected(study, whole)
    # Of two arms: refusals, tokens, the baseline, two rounds, completions of two kinds, completions of the other dose.
    assert len(whole.found) == 16
    assert {place.n for place in record.places} == {3}
    left = FinishedSteps()
    sessions = 0
    while sessions < 20:
        steps, done = FinishedSteps(left.found, save=_stop_after(6)), len(left.found)
        sessions += 1
        try:
            again = selected(study, steps)
            break
        except KeyboardInterrupt:
            assert len(left.found) == done + 6
    assert sessions == 3
    assert again == record
    assert left.found == whole.found


@pytest.mark.parametrize("works", [True, False])
def test_the_other_doses_are_tried_at_the_best_place_or_everywhere_if_none_works(study, monkeypatch, works):
    if not works:
        monkeypatch.setattr(place_choice, "BROKEN_MORE", -2.0)
    tried, whole = [], effect_selection.outcomes

    def outcomes(checkpoint, trials, *rest, **more):
        tried.append(len(trials))
        return whole(checkpoint, trials, *rest, **more)

    monkeypatch.setattr(effect_selection, "outcomes", outcomes)
    if works:
        record = selected(study, FinishedSteps())
        assert sorted(dose.coefficient for dose in record.doses) == [0.5, 1.0]
    else:
        with pytest.raises(WorkError, match="no layer has an effect without damage"):
            selected(study, FinishedSteps())
    finalists = tried[0] // 2
    assert finalists > 1
    assert tried == [2 * finalists] * 2 + [1 if works else finalists] * 2


def _stop_after(count):
    saved = []

    def save(_found):
        saved.append(1)
        if len(saved) == count:
            raise KeyboardInterrupt

    return save


@pytest.mark.soak
def test_a_run_folder_keeps_the_steps_until_the_selection_is_made(study, tmp_path, monkeypatch):
    ready = check(make_plan(for_planning(study)))
    remember, saved = Store.remember, []

    def stopping(store, key, value):
        remember(store, key, value)
        saved.extend([key] * (key == STEPS))
        if len(saved) == 7:
            raise KeyboardInterrupt

    def chosen():
        store = Store.create(tmp_path / "run", study.digest, study.toml())
        try:
            selected_study(study, ready, store)
            return store.selection(), store.recall(STEPS)
        finally:
            store.close()

    monkeypatch.setattr(Store, "remember", stopping)
    with pytest.raises(KeyboardInterrupt):
        chosen()
    saved += [STEPS]
    assert chosen() == (selected(study, FinishedSteps()), None)
    assert len(saved) == 17  # seven, the one that this test counts in, and the other nine


@pytest.mark.soak
def test_steps_of_other_weights_texts_or_places_are_done_again(study, tmp_path):
    steps = FinishedSteps()
    selected(study, steps)
    first = set(steps.found)
    tiny_model("llama", seed=9, num_hidden_layers=6).save_pretrained(tmp_path / "chat")
    selected(study, steps)
    changed = set(steps.found) - first
    # All steps of one arm; and completions of the other, if other places are the best now.
    assert 8 <= len(changed) <= 11
    second = set(steps.found)
    path = tmp_path / "harmful.jsonl"
    path.write_text(path.read_text().replace('"0 ', '"zero '))
    selected(study, steps)
    assert len(set(steps.found) - second) == 16
