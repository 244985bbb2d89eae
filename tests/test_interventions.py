"""Edits as values, their arithmetic, and tables for batches whose rows differ."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from demur.core.errors import InputError, WorkError
from demur.directions.direction import from_raw
from demur.directions.files.load_and_save import load_direction
from demur.interventions.edit_table import tabulate
from demur.interventions.intervention import ablate, add
from demur.interventions.intervention import edit as any_edit
from demur.models.layouts import Layout, Point, point

LAYOUT = Layout("llama", "model.layers", "self_attn", "mlp")
PARALLEL = Layout("gpt_neox", "gpt_neox.layers", "attention", "mlp", parallel=True)


def direction(seed=0, layer=2, width=16, scale=1.0):
    raw = scale * torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return from_raw(raw, name=f"d{seed}", layer=layer)


def apply(edits, stream, generated=None, layout=LAYOUT, n_layers=4):
    """Every point of the table applied once, in order."""
    for steps in tabulate(edits, layout, n_layers, stream.shape[-1], "cpu").values():
        for edit in steps:
            stream = edit.apply(stream, stream, generated)
    return stream


def test_ablation_removes_the_component_and_nothing_else():
    r = direction()
    stream = torch.randn(2, 5, 16)
    edited = apply([ablate(r)] * 2, stream)
    assert (edited @ r.vector).abs().max() < 1e-6
    other = torch.linalg.qr(torch.stack([r.vector, *torch.randn(15, 16)]).T).Q[:, 1:]
    assert torch.allclose(edited @ other, stream @ other, atol=1e-5)


@pytest.mark.parametrize("edit", [ablate, lambda r: add(r, 1.0)])
def test_a_table_for_other_rows_is_refused(edit):
    # Of two rows with different edits; a table that is the same for all rows holds for any number of them.
    with pytest.raises(WorkError, match="a table of edits for 2 rows was applied to a batch of 3 rows"):
        apply_to = torch.randn(3, 5, 16)
        for steps in tabulate([edit(direction()), None], LAYOUT, 4, 16, "cpu").values():
            steps[0].apply(apply_to, apply_to)


def test_ablating_twice_is_ablating_once():
    stream = torch.randn(1, 3, 16)
    once = apply([ablate(direction())], stream)
    assert torch.allclose(apply([ablate(direction())], once), once, atol=1e-6)


@given(st.floats(-50, 50), st.sampled_from(["unit", "raw", "residual"]))
def test_addition_adds_its_unit(coefficient, unit):
    r = direction(scale=7.0)
    edit = add(r, coefficient, unit=unit).with_residual_norm(11.0)
    length = {"unit": 1.0, "raw": r.raw_norm, "residual": 11.0}[unit]
    stream = torch.zeros(1, 2, 16)
    assert torch.allclose(apply([edit], stream)[0, 1], coefficient * length * r.vector, atol=1e-3)


def test_zero_and_none_leave_every_bit():
    stream = torch.randn(3, 4, 16)
    edited = apply([None, add(direction(), 0.0), ablate(direction())], stream)
    assert torch.equal(edited[:2], stream[:2])
    assert not torch.equal(edited[2], stream[2])


def test_rows_carry_their_own_edit():
    stream, edits = torch.randn(4, 3, 16), [None, ablate(direction(1)), add(direction(2), 3.0), ablate(direction(3))]
    together = apply(edits, stream)
    for row, edit in enumerate(edits):
        assert torch.allclose(together[row], apply([edit], stream[row : row + 1])[0], atol=1e-6)


def test_several_edits_of_one_row_act_in_order():
    stream, r = torch.randn(1, 2, 16), direction(layer=1)
    both = apply([(add(r, 5.0), ablate(r, layers=[1], sites=["resid_pre"]))], stream)
    assert (both @ r.vector).abs().max() < 1e-5
    other = apply([(ablate(r, layers=[1], sites=["resid_pre"]), add(r, 5.0))], stream)
    assert torch.allclose(other @ r.vector, torch.full((1, 2), 5.0), atol=1e-5)


@pytest.mark.parametrize(("positions", "changed"), [("all", "1111"), ("prompt", "1110"), ("generated", "0001")])
def test_positions_belong_to_the_prompt(positions, changed):
    stream, generated = torch.randn(1, 4, 16), torch.tensor([False, False, False, True])
    edited = apply([add(direction(), 2.0, positions=positions)], stream, generated)
    differs = (edited != stream).any(-1)[0]
    assert "".join(str(int(flag)) for flag in differs) == changed


def test_positions_may_differ_between_rows():
    stream, generated = torch.randn(3, 3, 16), torch.tensor([False, False, True])
    edits = [add(direction(), 1.0, positions="prompt"), add(direction(), 1.0), None]
    differs = (apply(edits, stream, generated) != stream).any(-1)
    assert differs.tolist() == [[True, True, False], [True, True, True], [False, False, False]]


def test_a_scoped_edit_refuses_to_guess_where_the_prompt_ends():
    with pytest.raises(InputError, match="where the prompt ends"):
        apply([add(direction(), 1.0, positions="prompt")], torch.randn(1, 2, 16))


def test_points_of_the_stream():
    inputs = [Point(layer, "resid_pre") for layer in range(5)]
    middles = [Point(layer, "resid_mid") for layer in range(4)]
    assert [point(2, site) for site in ("resid_pre", "resid_mid", "resid_post")] == [inputs[2], middles[2], inputs[3]]
    assert ablate(direction()).points(LAYOUT, 4) == tuple(sorted(inputs + middles))
    assert sorted(middles + inputs)[:4] == [inputs[0], middles[0], inputs[1], middles[1]]
    assert ablate(direction()).points(PARALLEL, 4) == tuple(inputs)
    assert add(direction(layer=2), 1.0).points(LAYOUT, 4) == (inputs[2],)
    # The same point under two names: added at both, removed once.
    twice = (inputs[1], inputs[2], inputs[2], inputs[3])
    assert add(direction(), 1.0, layers=[1, 2], sites=["resid_pre", "resid_post"]).points(LAYOUT, 4) == twice


def test_tables_are_shared_between_points():
    table = tabulate([ablate(direction()), None], LAYOUT, 4, 16, "cpu")
    assert len(table) == 9
    assert len({id(steps[0]) for steps in table.values()}) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: add(direction(), float("nan")), "finite"),
        (lambda: add(direction(), 1.0, unit="norm"), "'norm' is not a unit"),
        (lambda: add(direction(), 1.0, sites=["resid_prey"]), "did you mean 'resid_pre'"),
        (lambda: ablate(direction(), positions="last"), "'last' is not a choice"),
        (lambda: tabulate([add(direction(layer=4), 1.0)], LAYOUT, 4, 16, "cpu"), "layer 4 is out of range.*0 to 3"),
        (lambda: tabulate([ablate(direction(), layers=[-1])], LAYOUT, 4, 16, "cpu"), "layer -1 is out of range"),
        (lambda: tabulate([ablate(direction())], LAYOUT, 4, 24, "cpu"), "width 16, but .* width 24"),
        (lambda: add(direction(), 1.0, unit="residual").scaled_vector(), "mean residual norm"),
        (lambda: ablate(direction(), layers=range(4, 4)), "at no layer does nothing"),
        (lambda: add(direction(), 1.0, layers=[2, 2]), "the layers 2, 2 contain one layer twice"),
        (lambda: ablate(direction(), sites=[]).points(LAYOUT, 4), "at least one site"),
    ],
)
def test_refusals_say_what_and_what_to_do(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_raw_norm_that_no_file_says_is_no_unit(tmp_path):
    torch.save(direction().vector, tmp_path / "bare.pt")
    bare = load_direction(tmp_path / "bare.pt", layer=2)
    with pytest.raises(InputError, match="does not say its raw norm.*use unit 'unit' or 'residual'"):
        add(bare, 1.0, unit="raw")
    assert torch.equal(add(bare, 2.0).scaled_vector(), 2 * bare.vector)
    torch.save(3 * direction().vector, tmp_path / "long.pt")
    long = load_direction(tmp_path / "long.pt", layer=2)
    assert float(add(long, 2.0, unit="raw").scaled_vector().norm()) == pytest.approx(6, rel=1e-5)


@pytest.mark.parametrize("kind", ["Loose", "Listed"])
def test_settings_that_can_change_are_refused_when_the_edit_is_made(kind):
    direction = from_raw(torch.tensor([3.0, 4.0]), name="d", layer=1)
    with pytest.raises(InputError, match=f"kind 'tests.study_parts:{kind}' can change"):
        any_edit(f"tests.study_parts:{kind}", direction)
    assert hash(any_edit("tests.study_parts:Rotate", direction).settings)
