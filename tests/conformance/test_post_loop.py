"""The post's loop, written a second time in tests/naive.py, against demur with the settings of the presets.

The same direction and, for no edit, ablation and addition, the same tokens: on SmolLM2 and on tiny models of five families. And
the prompts that go in: the published templates to the letter, one BOS where the tokenizer puts one in front, none where not.
"""

import json

import pytest
import torch

import demur
from demur.engine.checkpoints import wrap
from demur.inputs.prompt_formats import FORMATS
from demur.inputs.prompts import bos_count
from demur.study.study_files import load_study
from tests import naive
from tests.tiny import HARMFUL, HARMLESS, tiny_model, tiny_tokenizer

UNUSED = 95
"""An id of the tiny models' vocabulary that no word has."""


def agree(checkpoint, spec, sides, tests, pad, *, layer, preset, coefficient=None):
    """Direction and tokens of both implementations under a preset's sites, length and stop rule."""
    study = load_study(preset)
    ablation, addition = (next(edit for edit in study.interventions if edit.kind == kind) for kind in ("ablate", "add"))
    sites = ablation.sites
    dose = addition.coefficient if coefficient is None else coefficient
    assert (study.max_new_tokens, study.stop_at_eos, study.direction.position) == (16, False, -1)

    prompt, template = demur.prompt_format(spec, checkpoint), FORMATS[spec]
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    found = demur.extract_direction(checkpoint, *sides, prompt, layer=layer, site=study.direction.site)
    expected = naive.direction(model, tokenizer, template, *sides, layer, pad)
    assert float(torch.dot(found.vector, expected)) > 0.99999

    edits = [None, demur.ablate(found, sites=sites), demur.add(found, dose, sites=sites)]
    rows = demur.generate(
        checkpoint, tests, prompt, edits, max_new_tokens=study.max_new_tokens, stop_at_eos=study.stop_at_eos, batch_rows=5
    )
    everywhere = range(checkpoint.n_layers)
    by_hand = [
        naive.completions(model, tokenizer, template, tests, pad),
        naive.completions(model, tokenizer, template, tests, pad, everywhere, naive.ablate_in_place(expected)),
        naive.completions(model, tokenizer, template, tests, pad, [layer], naive.add_in_place(dose * expected)),
    ]
    for name, ours, theirs in zip(("none", "ablate", "add"), rows, by_hand, strict=True):
        assert [list(row.token_ids) for row in ours] == theirs, name
        assert {len(row) for row in theirs} == {16}
    # Agreement says nothing of an edit that changes nothing.
    assert by_hand[0] != by_hand[1] != by_hand[2] != by_hand[0]


@pytest.mark.parametrize(
    ("family", "preset", "spec", "coefficient"),
    [
        ("llama", "llama-7b", "user-assistant", None),
        ("qwen2", "qwen1.5-0.5b", "chatml", None),
        ("gemma2", "gemma-2-9b", "gemma-base", None),
        # Parallel branches: two sites, so an addition acts twice. The preset's own coefficient counts raw norms.
        ("gpt_neox", "pythia-12b", "pythia", 4.0),
        ("gpt2", "qwen1.5-0.5b", "vicuna", None),
    ],
)
def test_tiny_models(family, preset, spec, coefficient):
    checkpoint = wrap(tiny_model(family), tiny_tokenizer(), name=family)
    tests = (*HARMFUL[:5], *HARMLESS[3:8])
    agree(checkpoint, spec, (HARMFUL, HARMLESS), tests, UNUSED, layer=1, preset=preset, coefficient=coefficient)


@pytest.mark.soak
def test_smollm2(smollm):
    sides = [demur.load_instructions(f"contrast-{label}").take("train", 32) for label in ("harmful", "harmless")]
    # Short ones, for the sake of a loop without a cache; five, so that one batch is not full.
    asked, benign = (demur.load_instructions(f"contrast-{label}").take("test") for label in ("harmful", "harmless"))
    tests = [*sorted(asked, key=len)[:3], *sorted(benign, key=len)[:2]]
    pad = smollm.tokenizer.convert_tokens_to_ids("<empty_output>")
    assert pad not in (None, smollm.tokenizer.unk_token_id, smollm.pad_id)
    agree(smollm, "chatml", sides, tests, pad, layer=14, preset="llama-7b", coefficient=12.0)


@pytest.mark.parametrize(("family", "same"), [("llama", True), ("qwen2", True), ("gemma2", False)])
def test_ablating_what_modules_put_out_equals_ablating_the_stream_only_without_norms_behind_them(family, same):
    model = tiny_model(family)
    unit = torch.nn.functional.normalize(torch.randn(32, generator=torch.Generator().manual_seed(5)), dim=0)
    ids = torch.tensor([[1, 7, 20, 33, 5, 60]])
    logits = []
    with torch.no_grad():
        logits.append(naive.logits_of(model, ids, UNUSED))
        with naive.hooked(model, naive.everywhere(range(3), naive.ablate_in_place(unit))):
            logits.append(naive.logits_of(model, ids, UNUSED))
        with naive.hooked_as_by_arditi(model, naive.ablate_in_place(unit)):
            logits.append(naive.logits_of(model, ids, UNUSED))
    plain, stream, modules = logits
    assert (stream - plain).abs().max() > 0.1
    assert ((stream - modules).abs().max() < 1e-4) == same


@pytest.mark.parametrize("spec", FORMATS)
def test_prompts_are_what_the_tokenizer_makes_of_the_template(spec):
    for adds_bos in (True, False):
        tokenizer = tiny_tokenizer(adds_bos=adds_bos)
        checkpoint = wrap(tiny_model("llama"), tokenizer)
        ids = demur.prompt_format(spec, checkpoint).encode(HARMFUL)
        assert ids == [tokenizer(FORMATS[spec].format(instruction=text))["input_ids"] for text in HARMFUL]
        assert {bos_count(row, tokenizer) for row in ids} == {int(adds_bos)}


def test_templates_of_the_presets_are_the_published_ones(shared):
    records = json.loads((shared / "reference/base-models-refuse/refusal_scores.json").read_text())
    arms = {
        "qwen1.5-0.5b": ("qwen1.5-0.5b", "base"),
        "gemma-2-9b": ("gemma-2-9b", "base"),
        "llama-7b": ("llama-7b", "base"),
        "vicuna-7b-v1.1": ("llama-7b", "chat"),
    }
    assert {record["model_name"] for record in records} == set(arms)
    for record in records:
        preset, checkpoint = arms[record["model_name"]]
        (spec,) = load_study(preset).checkpoints[checkpoint].prompts
        assert FORMATS[spec] == record["prompt_template"]
