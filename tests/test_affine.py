"""Affine edits: exact in every family, beside other edits, from Python and in a study, with the target's own means."""

import itertools

import numpy
import pytest
import torch

import demur
from demur.core.errors import InputError
from demur.core.registry import registry
from demur.directions.direction import from_raw
from demur.engine.batching import pad_left
from demur.engine.checkpoints import wrap
from demur.engine.decode import decode
from demur.engine.engine_protocol import Decoding, Row
from demur.engine.hooks import edited
from demur.engine.read_activations import point_activations
from demur.inputs.prompt_formats import FORMATS
from demur.interventions.affine import Affine
from demur.interventions.edit_kind import EditKind
from demur.interventions.edit_table import tabulate
from demur.interventions.stream_means import StreamMeans
from demur.models.families import layout_of
from demur.models.layouts import Point, point
from tests import naive, reference
from tests.tiny import FAMILIES, HARMFUL, HARMLESS, TOWERS, tiny_model, tiny_tokenizer

PROMPTS = [[1, *range(4, 4 + n)] for n in (2, 7, 3, 11, 5)]
NEW = 6


def direction(seed=3, layer=1, width=32):
    return from_raw(torch.randn(width, generator=torch.Generator().manual_seed(seed)), name=f"d{seed}", layer=layer)


def random_means(layout, label="harmless", seed=11, n_layers=3, width=32, size=4.0):
    """A vector of its own for every point, large enough to change what is said."""
    generator = torch.Generator().manual_seed(seed)
    points = tuple(sorted({point(layer, site) for layer in range(n_layers) for site in layout.sites}))
    mean = size * torch.randn(len(points), width, generator=generator, dtype=torch.float64)
    return StreamMeans(label, points, mean, mean.norm(dim=-1), 1)


def set_to(means, vector):
    """The edit written by hand, for the walk through the blocks."""

    def edit(layer, site, stream):
        unit = (vector / vector.norm()).to(stream.dtype)
        mean = means.at(point(layer, site)).to(stream.dtype)
        return stream - (stream @ unit)[..., None] * unit + (mean @ unit) * unit

    return edit


def everything(model, rows, decoding, **sizes):
    found = {}
    for done in decode(model, layout_of(model.config), rows, decoding, **sizes):
        found.update(done)
    return [found[i] for i in range(len(rows))]


@pytest.mark.parametrize("family", FAMILIES + TOWERS)
def test_the_means_and_the_edit_equal_a_walk_through_the_blocks(family):
    model = tiny_model(family, dtype=torch.float64)
    layout, prompt = layout_of(model.config), [1, 7, 20, 33, 5, 60]
    n_layers = len(layout.find_blocks(model))
    means = random_means(layout, n_layers=n_layers)
    seen, _ = reference.run_stream(model, torch.tensor([prompt]))
    ((_, found),) = point_activations(
        model, layout, [prompt], points=means.points, layers=[where.layer for where in means.points]
    )
    for row, where in enumerate(means.points):
        place = (where.layer - 1, "resid_post") if where.layer == n_layers else (where.layer, where.site)
        assert torch.allclose(found[0, row, 0], seen[place][0, -1].float(), rtol=1e-5, atol=1e-5), where
    edit = demur.affine(direction(), to=means)
    _, expected = reference.run_stream(model, torch.tensor([prompt]), set_to(means, direction().vector.double()))
    table = tabulate([edit], layout, n_layers, 32, "cpu")
    with torch.inference_mode(), edited(model, layout, table):
        logits = model(input_ids=torch.tensor([prompt]), use_cache=False).logits
    assert (logits - expected).abs().max() < 1e-5 * expected.abs().max()
    with torch.inference_mode():
        assert (model(input_ids=torch.tensor([prompt]), use_cache=False).logits - expected).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_equal_the_walk_with_and_without_a_cache(family):
    model = tiny_model(family)
    means = random_means(layout_of(model.config))
    expected = [reference.decode(model, prompt, set_to(means, direction().vector), 4) for prompt in PROMPTS[:2]]
    rows = [Row(tuple(prompt), demur.affine(direction(), to=means)) for prompt in PROMPTS[:2]]
    for use_cache in (True, False):
        assert everything(model, rows, Decoding(4, use_cache=use_cache)) == expected, use_cache


@pytest.mark.parametrize(
    "family", ["gemma2", *(pytest.param(one, marks=pytest.mark.soak) for one in ("llama", "gpt2", "gpt_neox"))]
)
def test_rows_beside_other_edits_are_what_they_are_alone(family):
    model = tiny_model(family)
    layout = layout_of(model.config)
    harmless, harmful = random_means(layout), random_means(layout, "harmful", seed=12)
    one, two = direction(1), direction(2)
    edits = [
        None,
        demur.affine(one, to=harmless),
        demur.affine(one, to=harmful),
        demur.affine(two, to=harmless, layers=[1]),
        demur.affine(two, to=harmful, sites=["resid_pre"], positions="prompt"),
        demur.affine(two, to=harmless, positions="generated"),
        demur.ablate(one),
        demur.add(two, 3.0),
        (demur.ablate(two), demur.affine(one, to=harmful)),
        (demur.affine(two, to=harmless), demur.add(one, 2.0)),
    ]
    rows = [Row(tuple(prompt), edit) for edit, prompt in itertools.product(edits, PROMPTS)]
    alone = [everything(model, [row], Decoding(NEW))[0] for row in rows]
    assert len({tuple(tokens) for tokens in alone}) > 4 * len(PROMPTS)
    for batch_rows, use_cache in ((3, True), (64, True), (64, False)):
        assert everything(model, rows, Decoding(NEW, use_cache=use_cache), batch_rows=batch_rows) == alone


def test_positions_of_the_edit():
    model, layout = tiny_model("llama"), layout_of(tiny_model("llama").config)
    means, prompts = random_means(layout), PROMPTS[:3]
    plain, prompt_only, generated_only, everywhere = (
        everything(model, [Row(tuple(one), edit) for one in prompts], Decoding(NEW))
        for edit in (None, *(demur.affine(direction(), to=means, positions=where) for where in ("prompt", "generated", "all")))
    )
    # The first new token is predicted at the prompt's last token.
    assert [row[0] for row in prompt_only] == [row[0] for row in everywhere] != [row[0] for row in plain]
    assert [row[0] for row in generated_only] == [row[0] for row in plain]
    assert generated_only != plain
    assert prompt_only != everywhere


@pytest.mark.parametrize(
    ("family", "spec"), [("llama", "user-assistant"), ("qwen2", "chatml"), ("gemma2", "gemma-base"), ("gpt_neox", "pythia"),
                         ("gpt2", "user-assistant")]
)  # fmt: skip
def test_the_naive_loop_with_its_own_means_gives_the_same_tokens(family, spec):
    checkpoint = wrap(tiny_model(family), tiny_tokenizer(), name=family)
    prompt, template, pad = demur.prompt_format(spec, checkpoint), FORMATS[spec], 95
    found = demur.extract_direction(checkpoint, HARMFUL[:4], HARMLESS[:4], prompt, layer=1)
    for label, texts in (("harmless", HARMLESS[:4]), ("harmful", HARMFUL[:4])):
        means = demur.stream_means(checkpoint, texts, prompt, label=label)
        by_hand = naive.means(checkpoint.model, checkpoint.tokenizer, template, texts, pad)
        changes = {place: naive.set_in_place(found.vector, mean) for place, mean in by_hand.items()}
        expected = naive.completions(
            checkpoint.model, checkpoint.tokenizer, template, HARMFUL[4:], pad, new_tokens=NEW, changes=changes
        )
        rows = demur.generate(
            checkpoint, HARMFUL[4:], prompt, [demur.affine(found, to=means)], max_new_tokens=NEW, stop_at_eos=False
        )[0]
        assert [list(row.token_ids) for row in rows] == expected, label


def test_the_level_of_each_point_is_its_own_and_the_direction_is_shared():
    layout = layout_of(tiny_model("llama").config)
    means = random_means(layout)
    table = tabulate([demur.affine(direction(), to=means), demur.ablate(direction(4)), None], layout, 3, 32, "cpu")
    assert len(table) == 7
    steps = [step for (step,) in table.values()]
    assert len({step.removed.data_ptr() for step in steps}) == 1
    for where, (step,) in table.items():
        assert step.removed_level[:, 0, 0].tolist() == pytest.approx([float(means.at(where) @ direction().vector.double()), 0, 0])
    stream = torch.randn(3, 4, 32)
    changed = steps[0].apply(stream, stream)
    assert torch.allclose(changed[0] @ direction().vector, steps[0].removed_level[0, 0], atol=1e-5)
    assert torch.equal(changed[2], stream[2])


def test_in_bfloat16_the_component_is_set_in_float32():
    layout = layout_of(tiny_model("llama").config)
    means = random_means(layout)
    (step,) = tabulate([demur.affine(direction(), to=means)], layout, 3, 32, "cpu")[Point(0, "resid_pre")]
    stream = torch.randn(1, 4, 32).bfloat16()
    unit, level = direction().vector, float(means.at(Point(0, "resid_pre")) @ direction().vector.double())
    expected = stream.float() - (stream.float() @ unit)[..., None] * unit + level * unit
    assert torch.allclose(step.apply(stream, stream).float(), expected.bfloat16().float(), rtol=1e-2, atol=1e-3)


def test_means_are_those_of_each_instruction_alone(checkpoint):
    prompt = demur.prompt_format("USER {instruction} ASSISTANT :", checkpoint)
    means = demur.stream_means(checkpoint, HARMLESS, prompt, label="harmful", position=-2)
    for site in ("resid_pre", "resid_mid", "resid_post"):
        activations = demur.capture(checkpoint, HARMLESS, prompt, site=site, position=-2)
        for layer in range(3):
            assert torch.allclose(means.at(point(layer, site)), activations[:, layer].double().mean(0), atol=1e-6)
    assert (means.label, means.position, means.count) == ("harmful", -2, len(HARMLESS))
    read = means.provenance
    assert (read.method, read.fingerprint, read.harmful.n, read.harmless) == ("mean", checkpoint.fingerprint, 8, None)


def test_steer_and_generate_agree(checkpoint):
    prompt = demur.prompt_format("USER {instruction} ASSISTANT :", checkpoint)
    edit = demur.affine(direction(), to=demur.stream_means(checkpoint, HARMLESS[:4], prompt))
    row = demur.generate(checkpoint, HARMFUL[:1], prompt, [edit], max_new_tokens=6)[0][0]
    ids = torch.tensor(prompt.encode(HARMFUL[:1]))
    with demur.steer(checkpoint, edit) as model:
        found = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, eos_token_id=list(checkpoint.stop_ids)
        )
    assert tuple(found[0, ids.shape[1] :].tolist()) == row.token_ids


def test_what_the_kind_says_of_itself():
    kind = registry("edit").get("affine")
    assert isinstance(kind, EditKind)
    said = {
        to: (kind.action_of(None, Affine.settings(to=to)), kind.target_facts(Affine.settings(to=to)))
        for to in ("harmless", "harmful")
    }
    assert said == {"harmless": ("affine", ("harmless means",)), "harmful": ("affine-to-harmful", ("harmful means",))}
    expected = {(action, label): kind.expected(action, label) for action in ("affine", "affine-to-harmful")
                for label in ("harmful", "harmless")}  # fmt: skip
    assert expected == {
        ("affine", "harmful"): -1,
        ("affine", "harmless"): 0,
        ("affine-to-harmful", "harmful"): 0,
        ("affine-to-harmful", "harmless"): 1,
    }
    assert {words.action for words in kind.words} == {"affine", "affine-to-harmful"}


class Neither:
    name, artefact, takes_dose, own_layer, repeats = "neither", "none", False, False, False
    default_on, settings, words = ("harmful",), None, ()

    def expected(self, action, instructions):
        return 0


def test_a_kind_without_any_arithmetic_is_refused():
    with pytest.raises(InputError, match="has no action or action_of, operation or operation_at; give it what"):
        registry("edit").get(f"{__name__}:Neither")


WITHOUT_MEANS = r"needs the target's mean activations over harmful instructions; read them with demur.stream_means\("


def test_refusals_say_what_is_missing(checkpoint):
    prompt = demur.prompt_format("USER {instruction} ASSISTANT :", checkpoint)
    edit = demur.affine(direction(), to="harmful")
    with pytest.raises(InputError, match=WITHOUT_MEANS):
        demur.generate(checkpoint, HARMFUL[:1], prompt, [edit])
    ids = torch.tensor(prompt.encode(HARMFUL[:1]))
    with pytest.raises(InputError, match=WITHOUT_MEANS), demur.steer(checkpoint, edit) as model:
        model(ids)
    some = demur.StreamMeans.of({(1, "resid_pre"): torch.ones(32)})
    with pytest.raises(InputError, match="harmless means were not read at resid_pre of layer 0, where an edit needs them"):
        demur.generate(checkpoint, HARMFUL[:1], prompt, [demur.affine(direction(), to=some)])
    one_place = demur.affine(direction(), to=some, layers=[1], sites=["resid_pre"])
    assert demur.generate(checkpoint, HARMFUL[:1], prompt, [one_place])
    wide = demur.StreamMeans.of({(1, "resid_pre"): torch.ones(16)})
    with pytest.raises(InputError, match="means of width 16 .* direction .* width 32"):
        demur.generate(checkpoint, HARMFUL[:1], prompt, [demur.affine(direction(), to=wide, layers=[1], sites=["resid_pre"])])
    for wrong, said in (("harmles", "did you mean 'harmless'"), ("x", "harmful, harmless"), (3, "a int; read means with")):
        with pytest.raises(InputError, match=said):
            demur.affine(direction(), to=wrong)
    with pytest.raises(InputError, match="vectors of one width"):
        demur.StreamMeans.of({(0, "resid_pre"): torch.ones(3), (1, "resid_pre"): torch.ones(4)})
    with pytest.raises(InputError, match="at least one instruction"):
        demur.stream_means(checkpoint, [], prompt)


def test_no_weights_equal_it(checkpoint):
    edit = demur.affine(direction(), to=random_means(checkpoint.layout))
    with pytest.raises(InputError, match="no orthogonalised weights equal this edit of kind 'affine': it also puts back"):
        demur.equivalence(checkpoint, edit)
    with pytest.raises(InputError, match="of kind 'ablate': only ablation at every layer"):
        demur.equivalence(checkpoint, demur.ablate(direction(), layers=[1]))
    whole = demur.equivalence(checkpoint, demur.ablate(direction()))
    assert whole == demur.equivalence(checkpoint, direction())


def test_padding_does_not_enter_the_means(checkpoint):
    prompt = demur.prompt_format("USER {instruction} ASSISTANT :", checkpoint)
    ids, _ = pad_left(prompt.encode(HARMLESS), checkpoint.pad_id, "cpu")
    assert len({len(one) for one in prompt.encode(HARMLESS)}) > 1
    assert ids.shape[0] == len(HARMLESS)
    together = demur.stream_means(checkpoint, HARMLESS, prompt)
    each = [demur.stream_means(checkpoint, [one], prompt) for one in HARMLESS]
    assert torch.allclose(together.mean, torch.stack([one.mean for one in each]).mean(0), atol=1e-5)
    assert numpy.allclose(together.mean_norm, torch.stack([one.mean_norm for one in each]).mean(0), atol=1e-5)
