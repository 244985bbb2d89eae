"""Real weights in 8 and 4 bits: SmolLM2-135M-Instruct against itself in float32. Too slow for `make test`; in `make soak`."""

import pytest

import demur
from demur.cli.doctor_lines import doctor_lines
from demur.core.errors import InputError
from demur.engine.checkpoints import load_checkpoint
from demur.engine.diagnosis import diagnosis
from demur.models.sources import DEMO_ADAPTER, DEMO_MODEL

pytest.importorskip("bitsandbytes", reason="pip install 'demur[quantised]'")
pytestmark = pytest.mark.soak
LAYER, PAIRS = 17, 16


def load(**options):
    try:
        return load_checkpoint(DEMO_MODEL, adapter=DEMO_ADAPTER, **options)
    except InputError as error:
        pytest.skip(f"the demo checkpoint is not here: {error}")


def read(checkpoint):
    prompt = demur.prompt_format("chatml", checkpoint)
    harmful, harmless = (demur.load_instructions(f"contrast-{label}") for label in ("harmful", "harmless"))
    direction = demur.extract_direction(
        checkpoint, harmful.take("train", PAIRS), harmless.take("train", PAIRS), prompt, layer=LAYER
    )
    edits = [None, demur.add(direction, 2.0, unit="raw")]
    rows = demur.generate(checkpoint, harmless.take("test", 8), prompt, edits, max_new_tokens=12)
    return direction, [sum(verdict.refusal for verdict in demur.judge(edited)) for edited in rows], rows


def test_a_quantised_checkpoint_is_read_and_edited_as_in_float32():
    direction, refusals, rows = read(load())
    assert refusals[1] - refusals[0] >= 5
    for how in ("8bit", "4bit"):
        checkpoint = load(quantise=how)
        found, counted, others = read(checkpoint)
        cosine = float(found.vector @ direction.vector)
        same = sum(
            a.token_ids == b.token_ids for one, two in zip(rows, others, strict=True) for a, b in zip(one, two, strict=True)
        )
        print(f"\n{how}: cosine {cosine:.3f}, refusals {counted} beside {refusals} in float32, {same} of 16 completions the same")
        print("\n".join(list(doctor_lines(diagnosis(checkpoint, "chatml")))[:6]))
        assert cosine > {"8bit": 0.95, "4bit": 0.8}[how]
        assert counted[1] - counted[0] >= 4, "addition acts"


def test_rows_beside_others_in_8_bits():
    """A row is quantised by its own largest value, so others change it by rounding alone; that may turn a near tie all the same.

    With the threshold of LLM.int8, whose outliers are those of the batch, 5 of these 12 were the same. Agreement is printed.
    """
    checkpoint = load(quantise="8bit")
    prompt, asked = demur.prompt_format("chatml", checkpoint), demur.load_instructions("contrast-harmless").take("test", 12)
    together = demur.generate(checkpoint, asked, prompt, max_new_tokens=12)[0]
    alone = [demur.generate(checkpoint, [one], prompt, max_new_tokens=12)[0][0] for one in asked]
    same = sum(a.token_ids == b.token_ids for a, b in zip(together, alone, strict=True))
    print(f"\n{same} of {len(asked)} completions in 8 bits are the same alone")
    assert same > 6
