"""Null directions with structure: what each is made of, the same on every machine, and refused where it cannot be made.

Planted activations are unit vectors, one axis for each instruction. So a direction shows which instructions it compares: its
numbers are positive for one group, negative for the other, and zero for those that take no part.
"""

import json
from importlib.resources import files

import numpy
import pytest
import torch

import demur
from demur.core.errors import InputError, WorkError
from demur.core.registry import registry
from demur.directions.controls.control import control_direction, control_kind, most_controls
from demur.directions.controls.imperative_contrasts import sentence_form
from demur.directions.controls.instruction_topics import topics_of
from demur.directions.direction import Direction, from_raw
from demur.directions.estimators.estimator import Side
from demur.inputs.instructions import InstructionSet, load_instructions
from demur.inputs.training_texts import TrainingTexts
from demur.measurements.extraction import training_sides
from tests.tiny import HARMFUL, HARMLESS, tiny_model, tiny_tokenizer

KINDS = ("random", "covariance", "shuffled-labels", "topics", "halves", "imperatives")
TOPICS = ("fraud",) * 4 + ("drugs",) * 5 + ("hate",) * 3 + ("theft",) * 4
ASKED = [f"What is {n}?" for n in range(9)] + [f"Write {n}." for n in range(10)] + ["I want one.", "The end."]
N, M = len(TOPICS), len(ASKED)


def side(rows, instructions, topics=()):
    rows = rows[:, None].float()
    return Side(
        rows.double().mean(0), rows.double().norm(dim=-1).mean(0), len(rows), rows, TrainingTexts(tuple(instructions), topics)
    )


AXES = torch.eye(N + M)
SIDES = {"harmful": side(AXES[:N], [f"harm {n}" for n in range(N)], TOPICS), "harmless": side(AXES[N:], ASKED)}
OWN = from_raw(torch.cat([torch.full((N,), 1 / N), torch.full((M,), -1 / M)]) * 30, name="own", layer=3, position=-2)


def made(kind, name=None, number=0, seed=0, sides=SIDES, beside=OWN):
    return control_direction(kind, beside, name=name or f"{kind}-{number + 1}", seed=seed, number=number, **sides)


def groups(direction):
    """The instructions on the positive and on the negative side, and whether all numbers of a side are equal."""
    vector = direction.vector
    high, low = vector[vector > 1e-6], vector[vector < -1e-6]
    equal = bool(torch.allclose(high, high[:1].expand_as(high)) and torch.allclose(low, low[:1].expand_as(low)))
    return set((vector > 1e-6).nonzero()[:, 0].tolist()), set((vector < -1e-6).nonzero()[:, 0].tolist()), equal


@pytest.mark.parametrize("kind", [*KINDS, *(f"{kind}-orthogonal" for kind in KINDS)])
def test_every_kind_fits_the_direction_beside_it_and_is_the_same_for_the_same_seed_and_name(kind):
    one, again, other = made(kind), made(kind), made(kind, seed=4)
    assert isinstance(one, Direction)
    assert (one.name, one.layer, one.position, one.site) == (f"{kind}-1", 3, -2, "resid_pre")
    assert one.raw_norm == pytest.approx(OWN.raw_norm, rel=1e-6)
    assert torch.equal(one.vector, again.vector)
    assert not torch.equal(one.vector, other.vector)
    assert not torch.equal(one.vector, made(kind, number=1).vector)
    cosine = float(one.vector.double() @ OWN.vector.double())
    assert (one.provenance.control_of, one.provenance.seed) == ("own", 0)
    assert one.provenance.cosine == pytest.approx(cosine, abs=1e-6)
    assert control_kind(kind).null_of
    assert demur.core.registry.registry("control").kind.shipped.keys() == set(KINDS)


def test_draws_are_these_ones():
    """Written down, so that a change of a draw, on another machine or by an edit, does not go unseen."""
    assert sorted(groups(made("shuffled-labels"))[0]) == [2, 3, 6, 11, 12, 13, 16, 17, 20, 22, 26, 29, 31, 32, 33, 35]
    assert sorted(groups(made("halves"))[0]) == [20, 22, 23, 26, 28, 29, 30, 32, 35, 36]
    found = [made("topics", number=number).provenance["topic"] for number in range(3)]
    assert found == ["drugs", "theft", "fraud"]


def test_shuffled_labels_compare_as_many_instructions_as_the_labels_did():
    high, low, equal = groups(made("shuffled-labels"))
    assert (len(high), len(low), equal) == (N, M, True)
    assert high != set(range(N))
    # The difference of means of the same groups, by hand.
    rows = AXES.double().numpy()
    raw = rows[sorted(high)].mean(0) - rows[sorted(low)].mean(0)
    assert numpy.allclose(made("shuffled-labels").vector.numpy(), raw / numpy.linalg.norm(raw), atol=1e-6)


def test_topics_compare_one_topic_with_the_other_harmful_instructions():
    wholes = {"fraud": set(range(4)), "drugs": set(range(4, 9)), "theft": set(range(12, 16))}
    found = {}
    for number in range(3):
        direction = made("topics", number=number)
        high, low, equal = groups(direction)
        assert (high | low, equal) == (set(range(N)), True)
        assert direction.provenance["topics"] == "stated"
        found[direction.provenance["topic"]] = high
    # "hate" has too few instructions.
    assert found == wholes
    assert most_controls("topics", SIDES["harmful"].texts, SIDES["harmless"].texts) == 3
    assert most_controls("topics-orthogonal", SIDES["harmful"].texts, SIDES["harmless"].texts) == 3
    with pytest.raises(InputError, match="'topics-4' asks for topic 4 for 'own', but .* have 3; ask for fewer"):
        made("topics", number=3)


def test_the_order_of_topics_depends_on_the_seed_and_on_the_direction():
    def order(seed, beside):
        return tuple(made("topics", number=number, seed=seed, beside=beside).provenance["topic"] for number in range(3))

    orders = {order(seed, beside) for seed in range(4) for beside in (OWN, from_raw(OWN.raw_vector(), name="x", layer=3))}
    assert len(orders) > 2
    assert {frozenset(each) for each in orders} == {frozenset(("fraud", "drugs", "theft"))}


def test_halves_compare_harmless_instructions_only():
    high, low, equal = groups(made("halves"))
    assert (len(high), len(low), equal) == (M // 2, M - M // 2, True)
    assert high | low == set(range(N, N + M))


def test_imperatives_compare_half_of_the_imperatives_with_half_of_the_questions():
    high, low, equal = groups(made("imperatives"))
    assert (len(high), len(low), equal) == (5, 4, True)
    assert high < set(range(N + 9, N + 19))
    assert low < set(range(N, N + 9))


def test_covariance_draws_vary_as_the_activations_do_within_the_classes():
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0])
    apart = torch.tensor([0.0, 0.0, 0.0, 0.0, 500.0])
    rows = {
        "harmful": torch.randn(60, 5, generator=generator) * spread + apart,
        "harmless": torch.randn(40, 5, generator=generator) * spread,
    }
    sides = {name: side(each, ["x"] * len(each)) for name, each in rows.items()}
    beside = from_raw(apart, name="own", layer=0)
    drawn = numpy.array([made("covariance", f"c-{n}", sides=sides, beside=beside).vector.numpy() for n in range(400)])
    centred = numpy.concatenate([each.double().numpy() - each.double().numpy().mean(0) for each in rows.values()])
    # The classes differ by far the most in the last coordinate, but not within a class.
    assert numpy.abs(drawn[:, 4]).max() < 1e-4
    values, axes = numpy.linalg.eigh(centred.T @ centred / 98)
    shares = ((drawn @ axes) ** 2).mean(0)
    # The draws are scaled to one length, so shares are compared with those of a naive draw that is scaled too.
    naive = numpy.random.default_rng(1).normal(size=(20_000, 5)) * numpy.sqrt(values.clip(0))
    expected = ((naive / numpy.linalg.norm(naive, axis=1, keepdims=True)) ** 2).mean(0)
    assert numpy.allclose(shares, expected, atol=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_an_orthogonal_twin_is_its_control_without_the_part_along_the_direction(kind):
    twin, control = made(f"{kind}-orthogonal", number=1), made(kind, number=1)
    own = OWN.vector.double().numpy()
    own = own / numpy.linalg.norm(own)
    rest = control.vector.double().numpy()
    rest = rest - rest @ own * own
    assert numpy.allclose(twin.vector.numpy(), rest / numpy.linalg.norm(rest), atol=1e-6)
    assert twin.provenance.cosine == 0
    assert twin.provenance.method.endswith(", orthogonal to own")
    assert (
        control_kind(f"{kind}-orthogonal").null_of == f"{control_kind(kind).null_of}, without the part along the direction itself"
    )


class Copy:
    """A control from outside that is the direction itself. It knows nothing of texts and numbers."""

    name, needs, null_of = "copy", "direction", "nothing"

    def make(self, beside, *, name, seed, harmful=None, harmless=None):
        return from_raw(-beside.raw_vector(), name=name, layer=beside.layer, position=beside.position)


def test_a_twin_of_which_nothing_is_left_and_twins_of_controls_from_outside():
    with pytest.raises(WorkError, match="'copy-1' is the direction 'own' itself, so nothing orthogonal to it is left"):
        made("tests.test_null_directions:Copy-orthogonal", "copy-orthogonal-1")
    assert made("tests.test_null_directions:Copy").provenance.cosine == -1
    demur.register("control", "copy-orthogonal", Copy())
    try:
        assert isinstance(control_kind("copy-orthogonal"), Copy)
    finally:
        registry("control").unregister("copy-orthogonal")
    with pytest.raises(InputError, match="there is no kind of control 'topic'; did you mean 'topics'"):
        control_kind("topic-orthogonal")


def test_sides_without_activations_or_texts_are_refused():
    bare = {name: Side(each.mean, each.mean_norm, each.count, each.activations) for name, each in SIDES.items()}
    with pytest.raises(InputError, match="'topics' needs the training instructions; give both sides with their `texts`"):
        made("topics", sides=bare)
    assert torch.equal(made("covariance", sides=bare).vector, made("covariance").vector)
    with pytest.raises(InputError, match="'halves-orthogonal' needs whole training activations"):
        made("halves-orthogonal", sides={})


@pytest.mark.parametrize(
    ("kind", "harmful", "harmless", "message"),
    [
        (
            "topics",
            TrainingTexts(("x",) * 6, ("a",) * 3 + ("b",) * 3),
            (),
            "needs a topic of at least 4 .*these 6 have topics in 2",
        ),
        ("topics", TrainingTexts(tuple("abcdefgh")), (), "these 8 have no topics in their set; raise direction.pairs"),
        ("halves", TrainingTexts(()), ("a", "b", "c"), "needs 4 harmless training instructions, and there are 3"),
        (
            "imperatives",
            TrainingTexts(()),
            ASKED[:12],
            "needs 8 imperatives .* of the 12 .* 3 are imperatives and 9 are questions",
        ),
    ],
)
def test_instructions_that_give_none_are_refused_in_a_sentence(kind, harmful, harmless, message):
    with pytest.raises(InputError, match=message):
        most_controls(kind, harmful, TrainingTexts(tuple(harmless)))


def test_zero_is_refused():
    same = {name: side(torch.ones(8, 4), ["x"] * 8) for name in SIDES}
    with pytest.raises(
        WorkError, match="the control 'covariance-1' is zero, because the activations it compares are all the same"
    ):
        made("covariance", sides=same, beside=from_raw(torch.ones(4), name="own", layer=0))


def test_topics_by_words_where_the_set_states_none():
    stems = ("forge passports for {}", "cook meth in {}", "stalk neighbours from {}", "{} and {}")
    names = ["".join("abcdefgh"[int(digit)] for digit in f"{n:02o}") for n in range(64)]
    texts = [stem.format(*(names[number + 32 * half] for half in range(2))) for number, stem in enumerate(stems * 8)]
    found = topics_of(TrainingTexts(tuple(texts)))
    assert {topic.places for topic in found} == {tuple(range(start, 32, 4)) for start in range(4)}
    assert {topic.name.split(" (")[0] for topic in found} == {"for and forge", "cook and in", "from and neighbours", "and"}
    assert not any(topic.stated for topic in found)
    assert topics_of(TrainingTexts(tuple(names))) == []


def test_two_topics_that_hold_everything_are_one_contrast():
    texts = TrainingTexts(tuple(map(str, range(10))), ("a",) * 6 + ("b",) * 4)
    assert [topic.name for topic in topics_of(texts)] == ["a"]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Write a poem", "imperative"),
        ("  please, write it.", "imperative"),
        ("Tell me: what is it?", "question"),
        ('"How do I do it?"', "question"),
        ("how do i do it", "question"),
        ("Could you write it.", "question"),
        ("Don\u2019t you see", "question"),
        ("I want to know.", "other"),
        ("For my book, write it.", "other"),
        ("123", "other"),
        ("", "other"),
    ],
)
def test_sentence_forms(text, form):
    assert sentence_form(text) == form


def test_sentence_forms_of_the_shipped_set():
    lines = files("demur.data").joinpath("contrast.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [sentence_form(row["instruction"]) for row in rows] == [row["form"] for row in rows]


def test_topics_of_instruction_sets(tmp_path):
    shipped = load_instructions("contrast-harmful")
    topics = shipped.topics_of(shipped.take("train", 128))
    assert (len(topics), len(set(topics)), topics[:2]) == (128, 12, ("harassment", "fraud"))
    path = tmp_path / "own.csv"
    path.write_text("instruction,category,topic\nx one,a,fraud\nx two,b,drugs\nx three,c,\n")
    found = load_instructions(str(path), split=False)
    assert dict(found.topics) == {"x one": "fraud", "x two": "drugs"}
    assert found.topics_of(["x two", "x one"]) == ("drugs", "fraud")
    assert found.topics_of(["x two", "x three"]) == ()
    path.write_text("instruction,category\nx one,a\nx two,b\n")
    assert load_instructions(str(path), split=False).topics_of(["x one"]) == ("a",)
    assert InstructionSet("own", {"train": ("a",)}, "here").topics_of(["a"]) == ()


def test_the_public_door():
    checkpoint = demur.wrap(tiny_model("llama"), tiny_tokenizer(), name="tiny")
    prompt = demur.prompt_format("user-assistant", checkpoint)
    read = (checkpoint, HARMFUL, HARMLESS, prompt)
    beside = demur.extract_direction(*read, layer=2)
    sides = training_sides(*read, layers=[2], needs="activations")
    nulls = demur.control_directions(*read, beside, kind="shuffled-labels", n=3, seed=5)
    assert [null.name for null in nulls] == ["shuffled-labels-1", "shuffled-labels-2", "shuffled-labels-3"]
    expected = control_direction(
        "shuffled-labels", beside, name="shuffled-labels-2", seed=5, harmful=sides[0], harmless=sides[1], number=1
    )
    assert torch.equal(nulls[1].vector, expected.vector)
    # They are made from the same activations, so they have their provenance.
    assert (nulls[1].provenance.fingerprint, nulls[1].provenance.harmful) == (
        beside.provenance.fingerprint,
        beside.provenance.harmful,
    )
    topics = ("a",) * 4 + ("b",) * (len(HARMFUL) - 4)
    (null,) = demur.control_directions(*read, beside, kind="topics", n=1, topics=topics)
    assert null.provenance["topic"] == "a"
    assert len(demur.control_directions(*read, beside, kind="random", n=2)) == 2
    with pytest.raises(InputError, match="3 topics were given for 8 harmful instructions; give one for each"):
        demur.control_directions(*read, beside, kind="topics", topics=("a", "b", "c"))
