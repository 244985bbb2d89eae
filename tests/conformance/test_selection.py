"""Arditi et al.'s selection, replayed on the scores they published."""

import json

import pytest

from demur.measurements.selection.ranking import by_refusal

LAYERS = {"gemma-2b-it": 18, "llama-2-7b-chat-hf": 32, "qwen-1_8b-chat": 24}


@pytest.mark.parametrize("model", LAYERS)
def test_published_scores_give_the_published_choice(shared, model):
    folder = shared / "reference/refusal_direction" / model
    rows = json.loads((folder / "select_direction/direction_evaluations.json").read_text())
    names = {"refusal_score": "bypass", "steering_score": "induce", "kl_div_score": "kl"}
    found = by_refusal([{names.get(key, key): value for key, value in row.items()} for row in rows], LAYERS[model])
    filtered = json.loads((folder / "select_direction/direction_evaluations_filtered.json").read_text())
    assert [place.place for place in found.kept] == [(row["position"], row["layer"]) for row in filtered]
    assert [-place.score for place in found.kept] == [row["refusal_score"] for row in filtered]
    chosen = json.loads((folder / "direction_metadata.json").read_text())
    assert found.best is not None
    assert found.best.place == (chosen["pos"], chosen["layer"])
