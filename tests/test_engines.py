"""A second engine: registered, loaded by name, used by the library's functions, and refused for what it cannot do."""

from typing import ClassVar

import pytest
import torch

import demur
from demur.core.errors import InputError
from demur.core.registry import registry
from demur.engine.checkpoints import Checkpoint, EngineKind
from demur.engine.diagnosis import diagnosis
from demur.engine.engine_protocol import Engine, LoadRequest
from demur.engine.transformers_engine import TransformersEngine
from tests.tiny import CHAT, HARMFUL, HARMLESS, tiny_tokenizer


class ParrotEngine:
    """Answers every prompt with its own last tokens, and reads fixed activations."""

    name = "parrot"
    family = "parrot"
    n_layers, d_model = 2, 8
    dtype, device = torch.float32, torch.device("cpu")
    stop_ids, pad_id = (2,), 0

    def __init__(self):
        self.tokenizer = tiny_tokenizer(chat_template=CHAT)

    def cannot(self, need):
        return "" if need == "activations" else "a parrot only repeats"

    def generate(self, rows, decoding, *, batch_tokens=None, batch_rows=None):
        for start in range(0, len(rows), batch_rows or len(rows)):
            some = range(start, min(len(rows), start + (batch_rows or len(rows))))
            yield {index: list(rows[index].prompt[-decoding.max_new_tokens :]) for index in some}

    def read(self, prompts, *, layers, site="resid_pre", positions=(-1,), batch_tokens=None):
        sizes = torch.tensor([float(sum(prompt)) for prompt in prompts])
        yield list(range(len(prompts))), sizes[:, None, None, None].expand(-1, len(layers), len(positions), 8) + torch.arange(8.0)

    def next_tokens(self, rows, *, layers=(), batch_tokens=None, finite_only=True):
        raise AssertionError("never asked, because it said that it cannot")

    def losses(self, rows, *, batch_tokens=0):
        raise AssertionError("never asked, because it said that it cannot")


class ParrotEngines:
    name: ClassVar[str] = "parrot"

    def load(self, request: LoadRequest) -> Checkpoint:
        if request.quantise is not None:
            raise InputError("a parrot has no weights to quantise; leave quantise out")
        engine: Engine = ParrotEngine()
        return Checkpoint(engine, "0123456789abcdef", request.name, f"cage {request.model}")


KIND: EngineKind = ParrotEngines()


@pytest.fixture
def parrot():
    demur.register("engine", "parrot", ParrotEngines)
    yield demur.load_checkpoint("polly", engine="parrot", name="bird")
    registry("engine").unregister("parrot")


def test_a_second_engine_generates(parrot):
    prompt = demur.prompt_format("USER {instruction} ASSISTANT :", parrot)
    ids = prompt.encode(HARMFUL)
    found = demur.generate(parrot, HARMFUL, prompt, [None, None], max_new_tokens=3, batch_rows=2)
    assert [[one.token_ids for one in row] for row in found] == [[tuple(one[-3:]) for one in ids]] * 2
    assert found[0][0].text == parrot.tokenizer.decode(ids[0][-3:], skip_special_tokens=True)
    assert repr(parrot) == "Checkpoint('bird', parrot, 2 layers of width 8, torch.float32 on cpu)"
    assert "parrot" in parrot._repr_html_()


def test_a_second_engine_is_read(parrot):
    prompt = demur.prompt_format("USER {instruction} ASSISTANT :", parrot)
    assert demur.capture(parrot, HARMFUL, prompt).shape == (len(HARMFUL), 2, 8)
    made = demur.extract_direction(parrot, HARMFUL, HARMLESS[:3], prompt, layer=1)
    assert made.provenance["architecture"] == {"family": "parrot", "layers": 2}
    assert demur.candidate_directions(parrot, HARMFUL, HARMLESS[:3], prompt).directions


def test_what_an_engine_cannot_do_is_refused_with_its_reason(parrot):
    prompt = demur.prompt_format("USER {instruction} ASSISTANT :", parrot)
    direction = demur.from_raw(torch.ones(8), name="d", layer=1)
    because = "a parrot only repeats; load it with another engine"
    with pytest.raises(InputError, match=f"engine 'parrot' of checkpoint 'bird' cannot edit the residual stream: {because}"):
        demur.generate(parrot, HARMFUL, prompt, [None, demur.ablate(direction)])
    with pytest.raises(InputError, match=f"cannot give next-token logits: {because}"):
        demur.refusal_scores(parrot, HARMFUL, prompt, [5])
    with pytest.raises(InputError, match=f"cannot give token losses: {because}"):
        demur.text_losses(parrot, HARMFUL)
    with pytest.raises(InputError, match="engine 'parrot' and has no transformers model; load it with engine='transformers'"):
        demur.equivalence(parrot, direction)
    with pytest.raises(InputError, match="has no transformers model"):
        diagnosis(parrot)
    with pytest.raises(InputError, match="has no layout"):
        _ = parrot.layout


def test_engines_are_found_by_name(parrot):
    with pytest.raises(InputError, match="there is no engine 'parot'; did you mean 'parrot'"):
        demur.load_checkpoint("polly", engine="parot")
    with pytest.raises(InputError, match="no weights to quantise"):
        demur.load_checkpoint("polly", engine="parrot", quantise="4bit")
    assert isinstance(registry("engine").get("transformers").name, str)


def test_the_transformers_engine_can_do_everything(checkpoint):
    assert isinstance(checkpoint.engine, TransformersEngine)
    needs = ("edits", "activations", "next tokens", "losses", "site proof")
    assert checkpoint.engine_for(*needs) is checkpoint.engine
    engine: Engine = checkpoint.engine
    assert (engine.n_layers, engine.d_model) == (checkpoint.n_layers, checkpoint.d_model) == (3, 32)
