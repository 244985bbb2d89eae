"""The exact probability of a refusal: against all token sequences of small vocabularies, and against sampling on real weights."""

import contextlib
import dataclasses
import re
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

import demur
from demur.core.errors import InputError
from demur.engine.engine_protocol import Row
from demur.judges.beginnings import beginnings_of
from demur.judges.prefix import PHRASES
from demur.measurements.exact_refusal.phrase_states import START, PhraseStates, State
from demur.measurements.exact_refusal.refusal_probability import Sampling, row_probabilities
from demur.measurements.exact_refusal.token_bytes import token_bytes
from tests.small_vocabularies import BruteForce, small_checkpoint, small_tokenizer
from tests.study_parts import Starts

KINDS = ("byte-level", "fallback", "metaspace", "words")
PROMPTS = ((3, 4, 5, 3), (1, 6, 4), (5,))
EXACT = Sampling(Starts(), max_new_tokens=4, min_mass=0.0)


def direction(checkpoint, layer=1, seed=0):
    vector = torch.randn(checkpoint.d_model, generator=torch.Generator().manual_seed(seed))
    return demur.from_raw(vector, name="d", layer=layer)


def compared(checkpoint, edits, sampling, prompts=PROMPTS):
    """Exact and brute-force probabilities of every prompt under every edit, which are all rows of one batch."""
    rows = [Row(prompt, edit) for edit in edits for prompt in prompts]
    found = row_probabilities(checkpoint, rows, sampling)
    stops = checkpoint.stop_ids if sampling.stop_at_eos else ()
    brute = [BruteForce.of(checkpoint, row.prompt, row.edits, sampling.max_new_tokens, stops) for row in rows]
    return found, torch.tensor([one.refusal(checkpoint, sampling.judge) for one in brute], dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_brute_force_over_all_sequences(kind):
    checkpoint = small_checkpoint(kind)
    found, brute = compared(checkpoint, [None], EXACT)
    assert (brute > 1e-4).all()
    assert (found.probability - brute).abs().max() < 1e-10
    # Nothing is left out, so the probability is exact.
    assert (found.gap == 0).all()


@pytest.mark.parametrize("stop_at_eos", [True, False])
@pytest.mark.parametrize("length", [1, 3, pytest.param(2, marks=pytest.mark.soak)])
def test_equals_brute_force_at_every_length(length, stop_at_eos):
    sampling = dataclasses.replace(EXACT, max_new_tokens=length, stop_at_eos=stop_at_eos)
    for kind in ("byte-level", "fallback"):
        found, brute = compared(small_checkpoint(kind), [None], sampling)
        assert (found.probability - brute).abs().max() < 1e-10


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
def test_edits_act_as_in_decoding(family, positions):
    checkpoint = small_checkpoint("words", family, extra=0)
    read = direction(checkpoint)
    edits = [
        None,
        dataclasses.replace(demur.ablate(read), positions=positions),
        dataclasses.replace(demur.add(read, 6.0), positions=positions),
        (demur.ablate(direction(checkpoint, seed=1)), dataclasses.replace(demur.add(read, -4.0), positions=positions)),
    ]
    found, brute = compared(checkpoint, edits, dataclasses.replace(EXACT, max_new_tokens=3))
    assert (found.probability - brute).abs().max() < 1e-10
    by_edit = brute.reshape(len(edits), -1)
    assert all((by_edit[0] - other).abs().max() > 1e-4 for other in by_edit[1:])


def test_a_gap_bounds_what_is_not_followed():
    checkpoint = small_checkpoint("byte-level")
    _, brute = compared(checkpoint, [None], EXACT)
    widths = []
    for min_mass in (0.3, 0.03, 0.003, 3e-5):
        found = row_probabilities(checkpoint, [Row(one) for one in PROMPTS], dataclasses.replace(EXACT, min_mass=min_mass))
        assert (found.probability <= brute + 1e-12).all()
        assert (found.probability + found.gap >= brute - 1e-12).all()
        widths.append(float(found.gap.max()))
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 0.1 > 0.01 > widths[-1] > 0


def test_small_batches_give_the_same():
    checkpoint = small_checkpoint("words")
    rows = [Row(one, edit) for one in PROMPTS for edit in (None, demur.ablate(direction(checkpoint)))]
    sampling = dataclasses.replace(EXACT, min_mass=1e-3)
    whole = row_probabilities(checkpoint, rows, sampling)
    small = row_probabilities(checkpoint, rows, sampling, batch_tokens=20)
    assert (whole.probability - small.probability).abs().max() < 1e-12
    assert whole.branches.tolist() == small.branches.tolist()


def test_rows_that_did_not_fit_are_counted_once(monkeypatch):
    from demur.engine.continuations import tree_levels

    checkpoint = small_checkpoint("words")
    rows = [Row(one) for one in PROMPTS]
    expected = row_probabilities(checkpoint, rows, EXACT)
    real, failed = tree_levels._next_level, []

    def scarce(level, step, follow):
        if len({branch.row for branch in level.branches}) > 1 and len(level.branches[0].tokens) == 2:
            failed.append(level)
            raise torch.OutOfMemoryError("tried to allocate 1 GiB")
        return real(level, step, follow)

    monkeypatch.setattr(tree_levels, "_next_level", scarce)
    found = row_probabilities(checkpoint, rows, EXACT)
    assert failed
    assert (found.probability - expected.probability).abs().max() < 1e-12
    assert (found.gap == 0).all()
    assert found.branches.tolist() == expected.branches.tolist()


def test_the_tensor_is_that_of_the_bounded_one(checkpoint):
    prompt, edits = demur.prompt_format("{instruction} :", checkpoint), [None, demur.ablate(direction(checkpoint))]
    asked = (checkpoint, ["make a cake", "tell me", "a"], prompt)
    found = demur.refusal_probability(*asked, interventions=edits, judge=Starts(), max_new_tokens=5)
    bounded = demur.bounded_refusal_probability(*asked, edits, Starts(), max_new_tokens=5)
    assert found.shape == bounded.gap.shape == bounded.branches.shape == (2, 3)
    assert torch.equal(found, bounded.probability)
    # Each row is what it is alone.
    for i, edit in enumerate(edits):
        for j, instruction in enumerate(asked[1]):
            alone = demur.refusal_probability(checkpoint, [instruction], prompt, [edit], Starts(), max_new_tokens=5)
            assert abs(float(alone[0, 0] - found[i, j])) < 1e-5


def test_what_cannot_be_computed_is_refused(checkpoint):
    asked = (checkpoint, ["a"], demur.prompt_format("{instruction} :", checkpoint))
    for judge in ("substring", "taxonomy"):
        with pytest.raises(InputError, match=f"the judge '{judge}' does not decide by the beginning"):
            demur.refusal_probability(*asked, judge=judge)
    with pytest.raises(InputError, match="give at least one"):
        demur.refusal_probability(checkpoint, [], asked[2])
    with pytest.raises(InputError, match="max_new_tokens must be at least 1"):
        demur.refusal_probability(*asked, max_new_tokens=0)
    with pytest.raises(InputError, match="min_mass must be"):
        demur.refusal_probability(*asked, min_mass=1.0)


def test_beginnings():
    assert beginnings_of("prefix") == PHRASES
    spaced, none = Starts(), Starts()
    spaced.beginnings, none.beginnings = ("I can ",), ()
    with pytest.raises(InputError, match="the phrase 'I can ' in beginnings"):
        beginnings_of(spaced)
    with pytest.raises(InputError, match="no phrase in beginnings"):
        beginnings_of(none)


def test_an_engine_without_the_method_is_refused(checkpoint):
    class Older:
        name = "older"

        def cannot(self, need):
            return ""

    with pytest.raises(InputError, match="cannot run trees of continuations: it has no method explore"):
        dataclasses.replace(checkpoint, engine=Older()).engine_for("branches")


def test_tokens_add_the_bytes_that_decode_writes():
    pieces = {kind: token_bytes(small_tokenizer(kind), 9).pieces[3:9] for kind in KINDS}
    assert pieces["byte-level"] == (b"no", b"I", b" can", b" cannot", b"not", b" ")
    assert pieces["words"] == (b" no", b" I", b" can", b" cannot", b" not", b" I'm")
    fallback = token_bytes(small_tokenizer("fallback"), 16)
    assert [fallback.pieces[i] for i in sorted(fallback.byte_ids)] == [b"\n", b"\xe2", b"\x80", b"\x99", b"I"]


def odd_tokenizer(decoder, *tokens, **settings):
    names = ("<pad>", "<eos>", "no", "I", *tokens)
    backend = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="no"))
    backend.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", **settings)


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        # As the first token it loses the space inside.
        (odd_tokenizer(decoders.Metaspace(), "\u2581can\u2581not"), r"joins the tokens \[4, 2\] to 'cannotno'"),
        # As the first token it keeps its marks.
        (odd_tokenizer(decoders.WordPiece(cleanup=False), "##not"), r"joins the tokens \[4, 2\] to '##not no'"),
        (odd_tokenizer(decoders.ByteLevel(), clean_up_tokenization_spaces=True), "clean_up_tokenization_spaces"),
        (odd_tokenizer(decoders.Replace("noI", "yes")), None),
        (odd_tokenizer(decoders.Sequence([decoders.Fuse(), decoders.Replace("noI", "yes")])), "joins the tokens"),
        (odd_tokenizer(decoders.Sequence([decoders.Replace("no", ""), decoders.Replace("I", "")])), "no token that is a word"),
    ],
)
def test_a_tokenizer_that_joins_otherwise_is_refused(tokenizer, message):
    size = len(tokenizer)
    if message is None:
        assert token_bytes(tokenizer, size).pieces[2:4] == (b"no", b"I")
    else:
        with pytest.raises(InputError, match=message):
            token_bytes(tokenizer, size)


def test_a_token_that_is_added_later_is_seen():
    tokenizer = small_tokenizer("words")
    assert token_bytes(tokenizer, 13).pieces[11] == b""
    tokenizer.add_tokens(["later"])
    assert token_bytes(tokenizer, 13).pieces[11] == b" later"


def after(states, *tokens):
    """The state after some tokens: None if a refusal is ruled out, True if it is certain."""
    state = START
    for token in tokens:
        moves = states.moves(state)
        if token in moves.refusals.tolist():
            return True
        where = moves.ids.tolist()
        if token not in where:
            return None
        state = moves.states[where.index(token)]
    return state


def test_states_of_a_byte_level_vocabulary():
    tokenizer = small_tokenizer("byte-level")
    pad, _, eos, no, i, can, cannot, _not, space, newline, quote, m, blank_i, unknown = range(14)
    states = PhraseStates(token_bytes(tokenizer, 14), Starts.beginnings, (eos,))
    assert after(states, space, newline, space, i) == State(b"I")  # blanks that the judge strips
    assert after(states, quote, blank_i) == State(b"I")  # a blank of three bytes in two tokens
    assert after(states, i, pad, unknown) == State(b"I")  # tokens without text
    assert after(states, i, cannot) is True  # runs past "I can", which is also a phrase
    assert after(states, i, space) == State(b"I ")
    assert after(states, i, quote, m) is True  # a character in two tokens
    assert after(states, i, eos) is None  # ended before a phrase is complete
    assert after(states, quote) == State(b"\xe2\x80")
    assert after(states, quote, i) is None  # bytes that are no character
    assert after(states, no, i) is None
    assert after(states, can) is None


def test_states_of_a_vocabulary_with_byte_fallback():
    tokenizer = small_tokenizer("fallback")
    pad, eos, i, spaced_i, can, m, newline, e2, x80, x99, byte_i = 0, 2, 4, 5, 6, 9, 10, 11, 12, 13, 14
    states = PhraseStates(token_bytes(tokenizer, 16), ("I\u2019", "I can", "II"), (eos,))
    assert after(states, newline, newline, spaced_i) == State(b"I")
    # The phrase is complete, but a further byte could make the whole run unreadable.
    assert after(states, i, e2, x80, x99) == State(b"", True)
    assert after(states, i, e2, x80, x99, m) is True
    assert after(states, i, e2, x80, x99, eos) is True
    assert after(states, i, e2, x80, x99, pad) == State(b"", True)
    assert after(states, i, e2, x80, x99, x99) is None
    assert after(states, i, byte_i, e2) == State(b"\xe2", True)
    assert after(states, i, byte_i, e2, m) is None
    assert after(states, i, byte_i, e2, eos) is None
    assert after(states, i, byte_i, e2, x80, x99, m) is True
    assert after(states, i, e2, m) is None
    assert after(states, byte_i, can) is True


def test_blanks_are_those_that_strip_removes():
    from demur.measurements.exact_refusal.phrase_states import _blanks

    every = (chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    assert {one.decode() for one in _blanks()} == {one for one in every if not one.strip()}


def test_token_bytes_of_a_real_vocabulary(smollm):
    found = token_bytes(smollm.tokenizer, 49152)
    for phrase in PHRASES:
        ids = smollm.tokenizer(phrase, add_special_tokens=False)["input_ids"]
        assert b"".join(found.pieces[i] for i in ids) == phrase.encode()
        assert after(PhraseStates(found, [phrase]), *ids) is True
    assert found.pieces[smollm.stop_ids[0]] == b""
    # Parts of characters, whose text alone would be a replacement character.
    assert sum("\ufffd" in piece.decode(errors="replace") for piece in found.pieces) > 100


@pytest.mark.soak
def test_agrees_with_sampling_on_real_weights(smollm):
    """The tuned checkpoint of the demo, with its direction and without; transformers samples with its own `generate`."""
    tuned = demur.load_checkpoint("demo:smollm2-135m-instruct", adapter="demo:safety-adapter", name="tuned")
    prompt, n, length = demur.prompt_format("chatml", tuned), 200, 6
    sides = [demur.load_instructions(f"contrast-{label}").take("train", 32) for label in ("harmful", "harmless")]
    edit = demur.ablate(demur.extract_direction(tuned, *sides, prompt, layer=17))
    instructions = demur.load_instructions("contrast-harmful").take("test", 2)
    found = demur.bounded_refusal_probability(tuned, instructions, prompt, [None, edit], max_new_tokens=length)
    assert 0.02 < found.probability[1].mean() < 0.9 < found.probability[0].max()
    shares = torch.zeros_like(found.probability)
    torch.manual_seed(0)
    for j, ids in enumerate(prompt.encode(instructions)):
        given = torch.tensor([ids] * n)
        settings = {"attention_mask": torch.ones_like(given), "pad_token_id": tuned.pad_id, "max_new_tokens": length}
        for i, context in enumerate((contextlib.nullcontext(), demur.steer(tuned, edit))):
            with context:
                made = tuned.model.generate(given, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, **settings)
            texts = tuned.tokenizer.batch_decode(made[:, len(ids) :], skip_special_tokens=True)
            shares[i, j] = sum(verdict.refusal for verdict in demur.judge(texts, "prefix")) / n
    # Four standard errors: of each share, and of the mean of all.
    variance = found.probability.clamp(0.01, 0.99) * (1 - found.probability.clamp(0.01, 0.99)) / n
    difference = shares - found.probability - found.gap / 2
    assert (difference.abs() < 4 * variance.sqrt() + found.gap).all(), (shares, found)
    assert difference.mean().abs() < 4 * variance.sum().sqrt() / difference.numel() + found.gap.mean(), (shares, found)


@pytest.mark.soak
def test_the_example_of_the_page_runs(smollm, capsys):
    page = (Path(__file__).parents[1] / "docs" / "refusal-probability.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    exec(compile(code, "refusal-probability.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["none", "ablate"]
    assert all(0 <= float(value) <= 1 for line in lines for value in line.split("(")[0].split()[1:])


def test_real_probabilities_have_small_gaps(smollm):
    instructions = demur.load_instructions("contrast-harmful").take("test", 2)
    found = demur.bounded_refusal_probability(smollm, instructions, "chatml")
    assert (found.gap < 3e-3).all()
    assert (found.probability > 0).all()
    assert (found.probability <= 1).all()
