"""Conditional edits: a gate is decided for each row from its prompt, exactly as in a naive loop."""

import pytest
import torch

import demur
from demur.core.errors import InputError
from demur.directions.provenance import Provenance
from demur.engine.engine_protocol import Continuation, Decoding, Row
from demur.engine.transformers_engine import TransformersEngine
from demur.models.families import layout_of
from demur.models.layouts import point
from tests import reference
from tests.test_affine import PROMPTS, direction
from tests.test_several_directions import FEW
from tests.tiny import FAMILIES, HARMFUL, HARMLESS, tiny_model, tiny_tokenizer

CONDITION = direction(5, layer=1)


def stream_of(model, prompt, where):
    """The unedited stream of a prompt at a point, by a walk through the blocks."""
    seen = {}

    def look(layer, site, stream):
        seen.setdefault(point(layer, site), stream.clone())
        return stream

    reference.decode(model, prompt, look, 1)
    return seen[where][0]


def naive_score(model, prompt, tokens):
    stream = stream_of(model, prompt, point(1, "resid_pre"))
    read = (stream.mean(0) if tokens == "all" else stream[-1]).double()
    return float(read @ CONDITION.vector.double() / read.norm() / CONDITION.vector.double().norm())


def check(family, prompts, new):
    model = tiny_model(family)
    engine = TransformersEngine(model, tiny_tokenizer(), layout_of(model.config))
    one, other = direction(1, 0), direction(2, 2)
    inner = demur.add(one, 6.0, layers=[2]), demur.ablate(other)
    rows, expected = [], []
    for tokens in ("all", "last"):
        scores = [naive_score(model, prompt, tokens) for prompt in prompts]
        middle = sum(sorted(scores)[len(scores) // 2 - 1 : len(scores) // 2 + 1]) / 2
        for above in (True, False):
            gate = demur.Gate(CONDITION, middle, above, tokens)
            opened = [(score > middle) == above for score in scores]
            assert {True, False} == set(opened)
            for prompt, is_open in zip(prompts, opened, strict=True):
                edits = (demur.when(inner[0], gate), inner[1])
                rows.append(Row(tuple(prompt), edits))

                def change(layer, site, stream, is_open=is_open):
                    if is_open and (layer, site) == (2, "resid_pre"):
                        stream = stream + 6.0 * one.vector
                    return stream - (stream @ other.vector)[..., None] * other.vector

                expected.append(reference.decode(model, prompt, change, new))
    found = {}
    for done in engine.generate(rows, Decoding(new)):
        found.update(done)
    assert [found[index] for index in range(len(rows))] == expected
    assert len({tuple(one) for one in expected}) > len(prompts)  # edits change what is said
    return engine, rows


@pytest.mark.parametrize("family", FEW)
def test_a_gate_is_that_of_a_naive_loop(family):
    engine, rows = check(family, PROMPTS, 3)
    # Logits and losses decide the same gates.
    plain = list(engine.next_tokens([Row(row.prompt, row.edits) for row in rows[:4]]))
    assert sum(len(one.indices) for one in plain) == 4
    gated, ((edit, rest), prompt) = rows[0], (rows[0].edits, rows[0].prompt)
    is_open = edit.gate.opens(torch.stack(list(stream_of(engine.model, list(prompt), point(1, "resid_pre")))))
    same = (demur.add(edit.direction, 6.0, layers=[2]), rest) if is_open else (rest,)
    ((_, losses),) = engine.losses([Continuation(prompt, (3, 4), gated.edits), Continuation(prompt, (3, 4), same)])
    assert torch.equal(losses[0], losses[1])


@pytest.mark.soak
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(FEW)))
def test_a_gate_is_that_of_a_naive_loop_in_every_family(family):
    check(family, PROMPTS, 3)


def test_rows_of_one_batch_have_gates_of_their_own():
    checkpoint = demur.wrap(tiny_model(), tiny_tokenizer(), name="tiny")
    prompt = demur.prompt_format("{instruction}", checkpoint)
    texts = [*HARMFUL[:3], *HARMLESS[:3]]
    edit = demur.add(direction(1, 0), 8.0, layers=[1])
    scores = [
        demur.Gate(CONDITION, 0.0).score(states[:, 0])
        for states in demur.capture(checkpoint, texts, prompt, layers=[1], positions="all")
    ]
    limit = sorted(scores)[2] / 2 + sorted(scores)[3] / 2
    gated = demur.when(edit, demur.Gate(CONDITION, limit))
    plain, always, sometimes = demur.generate(checkpoint, texts, prompt, [None, edit, gated], max_new_tokens=4)
    wanted = [(open_ if score > limit else closed).token_ids for score, open_, closed in zip(scores, always, plain, strict=True)]
    assert [one.token_ids for one in sometimes] == wanted
    assert [one.token_ids for one in always] != [one.token_ids for one in plain]
    alone = demur.generate(checkpoint, texts[:1], prompt, [gated], max_new_tokens=4)[0][0]
    assert alone.token_ids == sometimes[0].token_ids


def test_the_threshold_separates_as_well_as_any():
    checkpoint = demur.wrap(tiny_model(), tiny_tokenizer(), name="tiny")
    prompt = demur.prompt_format("{instruction}", checkpoint)
    for tokens in ("all", "last"):
        gate = demur.find_gate(checkpoint, CONDITION, HARMFUL, HARMLESS, prompt, tokens=tokens)
        sides = []
        for texts in (HARMFUL, HARMLESS):
            states = demur.capture(checkpoint, texts, prompt, layers=[1], positions="all")
            sides.append([gate.score(one[:, 0] if tokens == "all" else one[-1:, 0]) for one in states])

        def f1(threshold, above, sides=sides):
            hits, false = (sum((score > threshold) == above for score in side) for side in sides)
            return 2 * hits / (hits + false + len(sides[0]))

        best = max(
            f1(value + step, above) for side in sides for value in side for step in (-1e-9, 1e-9) for above in (True, False)
        )
        assert f1(gate.threshold, gate.above) == pytest.approx(best)
        assert all(abs(score - gate.threshold) > 1e-9 for side in sides for score in side)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: demur.Gate(CONDITION, 1.5), "the threshold of a gate is a cosine, from -1 to 1, not 1.5"),
        (lambda: demur.Gate(CONDITION, 0.5, tokens="first"), "'first' is not a choice of tokens for a gate"),
        (
            lambda: demur.Gate(
                demur.from_raw(torch.ones(4), name="d", layer=0, provenance=Provenance(not_in_the_file=("layer",))), 0.5
            ),
            "the file of direction 'd' has no layer, which a gate needs",
        ),
        (
            lambda: demur.when(demur.when(demur.ablate(CONDITION), demur.Gate(CONDITION, 0.1)), demur.Gate(CONDITION, 0.2)),
            "has a gate already",
        ),
    ],
)
def test_what_is_no_gate_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_a_gated_edit_never_acts_without_its_gate():
    edit = demur.when(demur.ablate(CONDITION), demur.Gate(CONDITION, 0.1))
    with (
        pytest.raises(InputError, match="has a gate, which is decided for each prompt before the edit acts"),
        demur.steer(tiny_model(), edit),
    ):
        pass
    checkpoint = demur.wrap(tiny_model(), tiny_tokenizer(), name="tiny")
    with pytest.raises(InputError, match="a gate needs harmless instructions, and there are none"):
        demur.find_gate(checkpoint, CONDITION, HARMFUL, [], "{instruction}")
