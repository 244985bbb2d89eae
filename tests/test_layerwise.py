"""Layer by layer, against captures laid along one by one; stored once, absent where a run has none, summed up with nulls."""

import math

import numpy
import pytest
import torch

import demur
from demur.directions.geometry import auroc
from demur.directions.separation import separation
from demur.engine.capture import mean_activations
from demur.engine.checkpoints import wrap
from demur.inputs.prompts import prompt_format
from demur.measurements.by_layer_projections import _laid_along, measure
from demur.measurements.by_layer_record import DRAWS, Layerwise
from demur.measurements.by_layer_summary import located
from demur.measurements.measurement import MeasurementRecord
from demur.runs.rows import StoredMeasurement
from demur.runs.store import Store
from tests.tiny import HARMFUL, HARMLESS, tiny_model, tiny_tokenizer
from tests.tiny_study import contents, make_study


def tensor(array):
    return torch.from_numpy(array).double()


TRAIN, OTHERS = slice(0, 5), slice(5, 8)


@pytest.fixture(scope="module")
def measured():
    checkpoint = wrap(tiny_model("llama", num_hidden_layers=4), tiny_tokenizer(), name="tiny")
    prompt = prompt_format("USER {instruction} ASSISTANT :", checkpoint)
    means = [mean_activations(checkpoint, side[TRAIN], prompt, layers=range(4)) for side in (HARMFUL, HARMLESS)]
    held_out = {"harmful": HARMFUL[OTHERS], "harmless": HARMLESS[OTHERS]}
    return checkpoint, prompt, measure(checkpoint, *means, held_out, prompt, batch_tokens=30)


def test_held_out_instructions_lie_where_their_captures_say(measured):
    checkpoint, prompt, found = measured
    high, low = (demur.capture(checkpoint, side[TRAIN], prompt).double() for side in (HARMFUL, HARMLESS))
    difference = high.mean(0) - low.mean(0)
    assert torch.allclose(tensor(found.difference), difference, atol=1e-5)
    assert torch.allclose(tensor(found.norms), torch.stack([high.norm(dim=-1).mean(0), low.norm(dim=-1).mean(0)]), atol=1e-4)
    for side, along in ((HARMFUL, found.harmful), (HARMLESS, found.harmless)):
        others = demur.capture(checkpoint, side[OTHERS], prompt).double()
        for layer in range(1, 4):
            unit, length = difference[layer] / difference[layer].norm(), difference[layer].norm()
            expected = ((others[:, layer] - low.mean(0)[layer]) @ unit) / length
            assert torch.allclose(tensor(along[:, layer]), expected, atol=1e-4)
    # The first layer's input at a template token is that token's embedding: there is no direction, and nothing is made up.
    assert abs(found.difference[0]).max() == 0
    assert numpy.isnan(found.harmful[:, 0]).all()
    assert found.null.shape == (DRAWS, 4)
    assert (found.null[:, 0] == 0.5).all()
    assert len(numpy.unique(found.null[:, 2])) > 1


@pytest.mark.parametrize("gap", [0.0, 0.25, 1.0])
def test_the_edges_of_the_band_do_not_hang_on_the_seed(gap):
    numbers, width, n = numpy.random.default_rng(1), 256, 60
    shared = numbers.normal(size=(12, width)) * numpy.linspace(3, 0.3, 12)[:, None]
    shift = gap * numbers.normal(size=width)

    def stream(moved):
        found = numbers.normal(size=(n, 12)) @ shared + 0.3 * numbers.normal(size=(n, width)) + moved
        return torch.from_numpy(found)[:, None, None]

    sides, origin, difference = (stream(shift), stream(0)), torch.zeros(1, width).double(), torch.from_numpy(shift)[None] + 1e-6
    edges = []
    for seed in range(5):
        drawn = torch.randn(width, DRAWS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        laid = [_laid_along(iter([(list(range(n)), side)]), n, origin, difference, drawn, lambda _: None)[1] for side in sides]
        null = auroc(*(each.movedim(0, -1) for each in laid))[0]
        edges.append(numpy.quantile(null.numpy(), [0.025, 0.975]))
    assert numpy.ptp(edges, axis=0).max() < 0.02
    assert edges[0][1] - edges[0][0] > 0.05


def test_arrays_come_back_from_the_store(measured, tmp_path):
    *_, found = measured
    store = Store.create(tmp_path, "digest", "")
    kept = StoredMeasurement("by-layer", "base/native", "{}", 1, MeasurementRecord({"checkpoint": "base"}, found.arrays()))
    store.add_measurement(kept)
    (again,) = store.measurements()
    assert again.key == kept.key
    assert again.record.facts == {"checkpoint": "base"}
    assert again.array_bytes() == kept.array_bytes()
    assert numpy.array_equal(Layerwise.from_arrays(again.record.arrays).null, found.null)


def test_auroc_counts_every_pair():
    generator = torch.Generator().manual_seed(0)
    high, low = (torch.randint(0, 6, (3, n), generator=generator).double() for n in (7, 4))
    for row in range(3):
        pairs = [(a > b) + 0.5 * (a == b) for a in high[row].tolist() for b in low[row].tolist()]
        assert float(auroc(high, low)[row]) == pytest.approx(sum(pairs) / len(pairs))
        assert separation(high[row].numpy(), low[row].numpy()).auroc == pytest.approx(sum(pairs) / len(pairs))


def test_what_a_summary_holds(measured):
    *_, found = measured
    facts = [{"checkpoint": name, "prompt": "p", "site": "resid_pre", "position": -1} for name in ("chat", "base")]
    opposed = Layerwise(-found.difference, found.norms, found.harmful, found.harmless, found.null)
    records = [MeasurementRecord(facts[0], found.arrays()), MeasurementRecord(facts[1], opposed.arrays())]
    summed = located(records, [2], ["base", "chat"])
    assert [arm["checkpoint"] for arm in summed["arms"]] == ["base", "chat"]
    (pair,) = summed["cosines"]
    assert pair["values"][0] is None
    assert pair["values"][1:] == pytest.approx([-1, -1, -1])
    arm = summed["arms"][1]
    assert arm["auroc"][0] is arm["auroc_ci95"][0] is arm["gap"][0] is None
    for layer in (1, 2, 3):
        assert arm["auroc_ci95"][layer][0] <= arm["auroc"][layer] <= arm["auroc_ci95"][layer][1]
    assert [entry["layer"] for entry in summed["projections"]] == [2, 2]
    assert summed["projections"][1]["harmful"] == pytest.approx(found.harmful[:, 2].tolist(), rel=1e-4)
    assert summed["cosine_null95"] == pytest.approx(1.96 / math.sqrt(found.difference.shape[1]), rel=1e-3)
    assert located([], [2], ["base"]) is None


def test_a_run_measures_each_arm_once_and_an_older_run_has_none(tmp_path, monkeypatch):
    study = demur.load_study(make_study(tmp_path / "files"))
    made = demur.run(study, tmp_path / "run")
    assert [arm["prompt"] for arm in made.summary()["by_layer"]["arms"]] == ["user-assistant", "native"]
    expected = contents(tmp_path / "run")
    figure = made.figure("separation")
    assert len(figure.data) > 3
    with pytest.raises(demur.InputError, match="no figure 'separatoin'; did you mean 'separation'"):
        made.figure("separatoin")

    def never(*_args, **_settings):
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr("demur.measurements.by_layer_projections.measure", never)
        demur.run(study, tmp_path / "run")
    # As a run of an earlier version that is only read.
    store = Store.open(tmp_path / "run")
    with store._transaction() as db:
        means = db.execute("SELECT * FROM means").fetchall()
        for table in ("measurements", "measurement_failures", "judge_failures", "means"):
            db.execute(f"DROP TABLE {table}")
        db.execute("ALTER TABLE completions DROP COLUMN own_turn")
        db.execute("PRAGMA user_version = 2")
    store.close()
    older = demur.open_run(tmp_path / "run")
    older.report()
    assert older.summary()["by_layer"] is None
    assert "has no measurements by layer" in (tmp_path / "run" / "report.html").read_text()
    with pytest.raises(demur.InputError, match="no figure 'separation'"):
        older.figure("separation")
    # A run of an earlier version has no means, and gets none unless an edit needs them. They are put back, to compare the rest.
    store = Store.open(tmp_path / "run")
    with store._transaction() as db:
        db.executemany(f"INSERT INTO means VALUES ({', '.join('?' * len(means[0]))})", means)
    store.close()
    # Gone on with, it is measured, and ends as if it had been from the start.
    demur.run(study, tmp_path / "run")
    assert contents(tmp_path / "run") == expected
