"""Subspaces and the kinds of edit `subspace`, `ablate-each`, `angular`, `clamp`, `leace`: exact, refused where wrong, stored."""

import math

import pytest
import torch

import demur
from demur.core.errors import InputError
from demur.core.registry import registry
from demur.engine.decode import decode
from demur.engine.engine_protocol import Decoding, Row
from demur.interventions.edit_kind import EditKind
from demur.interventions.edit_table import tabulate
from demur.interventions.facts.stream_spread import StreamSpread
from demur.interventions.target_facts import TargetFacts
from demur.models.families import layout_of
from demur.models.layouts import Point, point
from tests import leace_by_hand, reference
from tests.test_affine import PROMPTS, direction, random_means
from tests.tiny import FAMILIES, tiny_model

THREE = [direction(seed, layer) for seed, layer in ((1, 0), (2, 1), (3, 2))]
FEW = ["llama", "gemma2", "gpt_neox"]


def cases(layout):
    """Every kind with its settings, and the same change of the stream at a point, written by hand."""
    harmless, harmful = random_means(layout), random_means(layout, "harmful", seed=12)
    deviations = torch.randn(10, 32, generator=torch.Generator().manual_seed(13)) * torch.linspace(0.5, 3, 32)
    facts = TargetFacts.of_means(harmless, harmful, StreamSpread(Point(0, "resid_pre"), deviations))
    vectors = torch.stack([one.vector.double() for one in THREE])
    onto = (vectors.T @ torch.linalg.pinv(vectors.T)).float()
    first, second = vectors[:2]
    second = second - (second @ first) * first
    second = second / second.norm()

    def each(where):
        return THREE[min(where.layer, 2)].vector

    def limit(where, level):
        return float(((1 - level) * harmless.at(where) + level * harmful.at(where)) @ first)

    def turned(x, angle):
        a, b = x @ first.float(), x @ second.float()
        length = (a**2 + b**2).sqrt()
        new = length[..., None] * (math.cos(angle) * first + math.sin(angle) * second).float()
        return x - a[..., None] * first.float() - b[..., None] * second.float() + new

    read = leace_by_hand.reader(deviations, THREE[0].vector).float()

    def oblique(x, mean):
        return x - ((x - mean.float()) @ read)[..., None] * one.vector

    def moved(x, unit, to):
        return x - (x @ unit)[..., None] * unit + to * unit

    three, plane, one = demur.subspace(THREE), demur.subspace(THREE[:2]), THREE[0]
    return [
        (demur.ablate(three), lambda x, _: x - x @ onto),
        (demur.affine(three, to=harmless), lambda x, p: x - x @ onto + harmless.at(p).float() @ onto),
        (demur.affine(three, to=harmful, layers=[1]), lambda x, p: x - x @ onto + harmful.at(p).float() @ onto),
        (demur.edit("ablate-each", three), lambda x, p: moved(x, each(p), 0.0)),
        (
            demur.edit("ablate-each", three, to="harmless").with_facts(facts),
            lambda x, p: moved(x, each(p), float(harmless.at(p) @ each(p).double())),
        ),
        (demur.edit("angular", plane, angle=200.0), lambda x, _: turned(x, math.radians(200))),
        (
            demur.edit("angular", plane, only_along=True),
            lambda x, _: torch.where((x @ first.float())[..., None] > 0, turned(x, math.pi), x),
        ),
        (
            demur.edit("clamp", one).with_facts(facts),
            lambda x, p: moved(x, one.vector, (x @ one.vector).clamp(max=limit(p, 0))[..., None]),
        ),
        (
            demur.edit("clamp", one, bound="floor", level=0.75).with_facts(facts),
            lambda x, p: moved(x, one.vector, (x @ one.vector).clamp(min=limit(p, 0.75))[..., None]),
        ),
        (
            demur.edit("leace", one).with_facts(facts),
            lambda x, p: oblique(x, (harmless.at(p) + harmful.at(p)) / 2),
        ),
        (demur.edit("leace", one, to="harmless").with_facts(facts), lambda x, p: oblique(x, harmless.at(p))),
    ]


def by_hand(edit, change):
    """The change at the layers of the edit, for the walk through the blocks."""

    def at(layer, site, stream):
        return change(stream, point(layer, site)) if edit.layers is None or layer in edit.layers else stream

    return at


def check(family, prompts, new, use_cache=True):
    model = tiny_model(family)
    layout = layout_of(model.config)
    made = cases(layout)
    asked = [(edit, change, prompt) for edit, change in made for prompt in prompts]
    rows = [Row(tuple(prompt), edit) for edit, _, prompt in asked] + [Row(tuple(prompts[0]), None)]
    found = {}
    for done in decode(model, layout, rows, Decoding(new, use_cache=use_cache)):
        found.update(done)
    for index, (edit, change, prompt) in enumerate(asked):
        expected = reference.decode(model, prompt, by_hand(edit, change), new)
        assert found[index] == expected, (edit.kind, edit.settings)
    assert found[len(asked)] == reference.decode(model, prompts[0], reference.leave, new)
    # Most edits change what is said, so that equal tokens mean something.
    changed = {tuple(found[index]) for index, (_, _, prompt) in enumerate(asked) if prompt == prompts[0]}
    assert len(changed | {tuple(found[len(asked)])}) > len(made) // 2


@pytest.mark.parametrize("family", FEW)
def test_rows_of_one_batch_equal_the_naive_loop(family):
    check(family, PROMPTS[:2], 4)


@pytest.mark.soak
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_one_batch_equal_the_naive_loop_in_every_family(family):
    for use_cache in (True, False):
        check(family, PROMPTS[:3], 6, use_cache)


def test_the_basis_is_orthonormal_and_begins_with_the_first_direction():
    three = demur.subspace(THREE)
    assert torch.allclose(three.basis @ three.basis.T, torch.eye(3), atol=1e-6)
    assert torch.allclose(three.basis[0], THREE[0].vector, atol=1e-6)
    assert all(float(row @ one.vector) > 0 for row, one in zip(three.basis, THREE, strict=True))
    together = torch.stack([one.vector for one in THREE])
    assert torch.allclose(together @ three.basis.T @ three.basis, together, atol=1e-6)
    assert (three.name, len(three), three.width) == ("d1+d2+d3", 3, 32)


def test_a_subspace_of_one_direction_is_this_direction():
    model = tiny_model("llama")
    layout = layout_of(model.config)
    stream = torch.randn(1, 5, 32)
    means = random_means(layout)
    one = demur.subspace(THREE[:1])
    for alone, several in (
        (demur.ablate(THREE[0]), demur.ablate(one)),
        (demur.affine(THREE[0], to=means), demur.affine(one, to=means)),
        (demur.ablate(THREE[0]), demur.edit("ablate-each", one)),
    ):
        first, second = (tabulate([edit], layout, 3, 32, "cpu")[Point(1, "resid_mid")][0] for edit in (alone, several))
        assert torch.allclose(first.apply(stream, stream), second.apply(stream, stream), atol=1e-6)


def test_what_each_kind_leaves_alone():
    layout = layout_of(tiny_model("llama").config)
    stream = torch.randn(1, 50, 32)
    facts = TargetFacts.of_means(random_means(layout, size=0.0))

    def after(edit, where):
        (step,) = tabulate([edit], layout, 3, 32, "cpu")[where]
        return step.apply(stream, stream)

    turned = after(demur.edit("angular", demur.subspace(THREE[:2]), angle=70.0), Point(1, "resid_pre"))
    assert torch.allclose(turned.norm(dim=-1), stream.norm(dim=-1), rtol=1e-5)
    assert not torch.allclose(turned, stream, atol=1e-2)
    below = (stream @ THREE[0].vector) < 0
    clamped = after(demur.edit("clamp", THREE[0]).with_facts(facts), Point(1, "resid_pre"))
    assert 0 < int(below.sum()) < below.numel()
    assert torch.equal(clamped[below], stream[below])
    assert float((clamped[~below] @ THREE[0].vector).abs().max()) < 1e-5
    # After the last block there is no direction of its own; the last layer's is used.
    last = after(demur.edit("ablate-each", demur.subspace(THREE)), Point(3, "resid_pre"))
    assert float((last @ THREE[2].vector).abs().max()) < 1e-5


def test_the_file_keeps_every_bit(tmp_path):
    made = demur.subspace(THREE, name="mine")
    path = made.save(tmp_path / "new" / "mine.safetensors")
    read = demur.load_subspace(path)
    assert read.name == "mine"
    assert torch.equal(read.basis, made.basis)
    for one, other in zip(read.directions, made.directions, strict=True):
        assert torch.equal(one.vector, other.vector)
        assert (one.name, one.layer, one.raw_norm, one.provenance) == (other.name, other.layer, other.raw_norm, other.provenance)
    assert read.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_files_that_are_no_subspace(tmp_path):
    alone = THREE[0].save(tmp_path / "one.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("no tensors", encoding="utf-8")
    for path, said in (
        (alone, "is of format 'demur-direction-1'|holds no subspace; read a single direction with demur.load_direction"),
        (text, "is not a safetensors file"),
        (tmp_path / "none.safetensors", "there is no subspace file"),
    ):
        with pytest.raises(InputError, match=said):
            demur.load_subspace(path)
    with pytest.raises(InputError, match=r"ends with .safetensors, not to 'x.pt'"):
        demur.subspace(THREE).save(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: demur.subspace([]), "no directions span no space"),
        (lambda: demur.subspace([direction(width=8), direction(width=9)]), r"widths \[8, 9\] span no space"),
        (lambda: demur.subspace([THREE[0], THREE[0]]).basis, "'d1' of layer 0 lies in the space .* leave it out"),
        (lambda: demur.subspace([direction(seed, width=2) for seed in range(3)]).basis, "3 directions of width 2 cannot"),
        (lambda: demur.edit("ablate", demur.subspace(THREE)), "'ablate' takes a direction; give one of its directions"),
        (lambda: demur.edit("subspace", THREE[0]), r"'subspace' takes a subspace; make one with demur.subspace\(\[...\]\)"),
        (lambda: demur.edit("angular"), "'angular' takes a subspace; give one"),
        (lambda: demur.edit("subspace", demur.subspace(THREE), to="mean"), "to of an edit of kind 'subspace'"),
        (lambda: demur.Intervention("subspace").several(), "has no subspace; give one, made with demur.subspace"),
    ],
)
def test_what_does_not_fit_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (demur.edit("angular", demur.subspace(THREE)), "turns in the plane of two directions, not of 3"),
        (demur.edit("ablate-each", demur.subspace([THREE[0], direction(9, layer=0)])), "found two directions of layer 0"),
        (demur.affine(demur.subspace(THREE), to="harmful"), "needs the target's mean activations over harmful instructions"),
        (demur.edit("clamp", THREE[0]), "needs the target's mean activations over harmless instructions"),
        (demur.ablate(demur.subspace([direction(width=16)])), "direction 'd3' has width 16, .* width 32"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_model_runs(edit, said):
    with pytest.raises(InputError, match=said):
        tabulate([edit], layout_of(tiny_model("llama").config), 3, 32, "cpu")


SAID = {
    "subspace": [({}, "ablate-subspace", -1, 0, ()), ({"to": "harmful"}, "affine-subspace-to-harmful", 0, 1, ("harmful means",))],
    "ablate-each": [({"to": "harmless"}, "affine-each", -1, 0, ("harmless means",)),
                    ({"to": "harmful"}, "affine-each-to-harmful", 0, 1, ("harmful means",))],
    "clamp": [({}, "clamp", -1, 0, ("harmless means",)),
              ({"bound": "floor", "level": 1.0}, "clamp-from-below", 0, 1, ("harmful means",)),
              ({"level": 0.5}, "clamp", -1, 0, ("harmless means", "harmful means"))],
}  # fmt: skip


@pytest.mark.parametrize("name", SAID)
def test_what_the_kinds_say_of_themselves(name):
    kind = registry("edit").get(name)
    assert isinstance(kind, EditKind)
    for given, action, harmful, harmless, facts in SAID[name]:
        settings = kind.settings(**given)
        assert kind.action_of(None, settings) == action
        assert (kind.expected(action, "harmful"), kind.expected(action, "harmless")) == (harmful, harmless)
        assert kind.target_facts(settings) == facts
        assert action in {words.action for words in kind.words}


def test_a_turn_has_one_action():
    kind = registry("edit").get("angular")
    assert isinstance(kind, EditKind)
    assert [words.action for words in kind.words] == [kind.action(None)]
    assert kind.expected("angular", "harmful") == kind.expected("angular", "harmless") == 0
