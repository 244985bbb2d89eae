"""The measurement `direction-agreement`: its numbers against slow loops and planted truths, and its place in a run."""

import numpy
import pytest

import demur
from demur.core.errors import InputError
from demur.measurements.agreement_numbers import agreement
from demur.measurements.agreement_summary import by_layer
from demur.measurements.direction_agreement import AgreementSettings, DirectionAgreement
from demur.measurements.measurement import ArmSubject, PairSubject, without_pairs
from demur.runs.runner import run
from demur.study.study_files import load_study
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_study import make_study

N, M, WIDTH = 12, 9, 7


def cosine(one, other):
    return one @ other / numpy.sqrt((one @ one) * (other @ other))


def difference(read, labels):
    return read[labels].mean(0) - read[~labels].mean(0)


@pytest.fixture
def reads():
    generator = numpy.random.default_rng(3)
    shared = generator.normal(size=(N + M, 2, WIDTH))
    lift = numpy.zeros((N + M, 2, WIDTH))
    lift[:N, :, 0] = 2.0
    one, other = (shared + lift + 0.5 * generator.normal(size=shared.shape) for _ in range(2))
    return one, other


def test_numbers_equal_slow_loops(reads):
    one, other = reads
    found = agreement(one, other, N, draws=30, splits=4, seed=5)
    labels = numpy.arange(N + M) < N
    generator = numpy.random.default_rng(5)
    shuffles = [generator.permutation(labels) for _ in range(30)]
    for layer in range(2):
        a, b = one[:, layer], other[:, layer]
        assert found.cosine[layer] == pytest.approx(cosine(difference(a, labels), difference(b, labels)))
        null = [cosine(difference(a, each), difference(b, each)) for each in shuffles]
        numpy.testing.assert_allclose(found.null[:, layer], null)

        def product(left, right, kept):
            high, low = [i for i in kept if i < N], [i for i in kept if i >= N]
            within = [
                sum(left[i] @ right[j] for i in side for j in side if i != j) / (len(side) * (len(side) - 1))
                for side in (high, low)
            ]
            across = sum(left[i] @ right[j] + left[j] @ right[i] for i in high for j in low) / (len(high) * len(low))
            return sum(within) - across

        def corrected(kept):
            return product(a, b, kept) / numpy.sqrt(product(a, a, kept) * product(b, b, kept))  # noqa: B023

        everything = list(range(N + M))
        assert found.corrected[layer] == pytest.approx(corrected(everything))
        without = [corrected([i for i in everything if i != out]) for out in everything]
        spread = sum((len(side) - 1) * numpy.var(side) for side in (without[:N], without[N:]))
        assert found.corrected_se[layer] == pytest.approx(spread**0.5)


def test_halves_are_those_of_one_arm(reads):
    # Without noise, both halves give the same direction.
    still = numpy.zeros((N + M, 1, WIDTH))
    still[:N, 0, 2] = 1.0
    found = agreement(still, reads[0][:, :1], N, draws=20, splits=50)
    assert found.halves[0, 0] == pytest.approx(1.0)
    assert 0.3 < found.halves[1, 0] < 1.0


def test_shared_noise_alone_is_not_agreement():
    """Two arms without a harm direction that read the same noise: the cosine is high, but no higher than for shuffled labels."""
    generator = numpy.random.default_rng(0)
    above, cosines = [], []
    for _ in range(60):
        shared = generator.normal(size=(40, 1, 30))
        one, other = (shared + 0.3 * generator.normal(size=shared.shape) for _ in range(2))
        found = by_layer(agreement(one, other, 20, draws=99, splits=1).arrays())
        above.append(found["p_above"][0])
        cosines.append(found["cosine"][0])
    assert min(cosines) > 0.8
    assert 0.3 < numpy.mean(above) < 0.7, "p values of a true null lie around a half"
    assert numpy.mean(numpy.array(above) <= 0.05) <= 0.15


def test_the_corrected_cosine_finds_the_true_one():
    """True directions at 60 degrees under noise that both arms share: the plain cosine is too high, the corrected one is not."""
    generator = numpy.random.default_rng(1)
    plain, corrected, covered = [], [], []
    for _ in range(100):
        shared = generator.normal(size=(80, 1, 40))
        one, other = shared.copy(), shared.copy()
        one[:40, 0, 0] += 2.5
        other[:40, 0, :2] += 2.5 * numpy.array([0.5, 0.75**0.5])
        found = agreement(one, other, 40, draws=20, splits=1)
        plain.append(found.cosine[0])
        corrected.append(found.corrected[0])
        covered.append(abs(found.corrected[0] - 0.5) < 1.96 * found.corrected_se[0])
    assert numpy.mean(plain) > 0.58
    assert numpy.mean(corrected) == pytest.approx(0.5, abs=0.03)
    assert numpy.mean(covered) > 0.9


def test_what_is_not_defined_is_none():
    # The first layer of a template token is the same for every instruction.
    still, noise = numpy.ones((20, 1, 5)), numpy.random.default_rng(0).normal(size=(20, 1, 5))
    found = by_layer(agreement(still, noise, 10, draws=20, splits=2).arrays())
    assert {key: found[key] for key in ("cosine", "corrected", "corrected_ci95", "null_mean", "null95", "p_above")} == {
        "cosine": [None],
        "corrected": [None],
        "corrected_ci95": [None],
        "null_mean": [None],
        "null95": [None],
        "p_above": [None],
    }
    assert found["halves"][0] == [None]


def test_a_corrected_cosine_far_beyond_one_is_not_given():
    generator = numpy.random.default_rng(4)
    for _ in range(50):
        noise = generator.normal(size=(16, 1, 8))
        found = by_layer(agreement(noise, noise + 0.01, 8, draws=20, splits=1).arrays())
        (value,), (ends,) = found["corrected"], found["corrected_ci95"]
        assert (value is None) == (ends is None)
        if ends is not None:
            assert -1 <= ends[0] <= ends[1] <= 1


def test_arms_of_different_shapes_and_few_instructions_are_refused():
    small, wide = (demur.wrap(tiny_model("llama", **changes), tiny_tokenizer()) for changes in ({}, {"hidden_size": 64}))
    texts = {"harmful": ("a",) * 4, "harmless": ("b",) * 4}

    def arm(checkpoint, train=texts):
        return ArmSubject("x/y", checkpoint, None, train, {}, "resid_pre", -1, (1,))

    with pytest.raises(InputError, match="different shapes"):
        DirectionAgreement().measure(PairSubject("p", arm(small), arm(wide)), AgreementSettings())
    few = {"harmful": ("a",) * 3, "harmless": ("b",) * 4}
    with pytest.raises(InputError, match="at least 4 training instructions of each kind, not 3"):
        DirectionAgreement().measure(PairSubject("p", arm(small, few), arm(small, few)), AgreementSettings())


def test_pairs_of_one_checkpoint_are_measured_too(tmp_path):
    file = make_study(tmp_path)
    changes = ['measurements=["direction-agreement"]', 'checkpoints.base.prompts=["user-assistant", "vicuna"]']
    with run(load_study(file, changes), tmp_path / "run") as finished:
        measured = finished.summary_record().measurements
        cosines = finished.summary_record().cosines
    assert [one.subject for one in measured] == [
        "base/user-assistant with base/vicuna",
        "base/user-assistant with chat/native",
        "base/vicuna with chat/native",
    ]
    for one in measured:
        numbers = one.summary
        names = [name if name.startswith("base") else "chat" for name in (arm.replace("/", ".") for arm in numbers["arms"])]
        places = [cosines.names.index(name) for name in names]
        # The study reads its directions at layer 1, from the same instructions.
        assert numbers["cosine"][1] == pytest.approx(cosines.matrix[places[0]][places[1]], abs=1e-4)
        assert len(numbers["null95"]) == len(numbers["cosine"])


def test_a_study_with_one_arm_is_told():
    found = DirectionAgreement()
    assert without_pairs(found, ["base", "base"]) == []
    assert without_pairs(found, ["base"]) == [
        "The measurement direction-agreement compares two arms, and this study has one, so it is not made."
    ]
