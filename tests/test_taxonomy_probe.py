"""The judge `taxonomy-probe`: what it reads of a language model, against plain transformers, and what it leaves as it is."""

import pytest
import torch

import demur
from demur.core.errors import InputError
from demur.engine.model_judges import taxonomy_probe
from demur.engine.model_judges.taxonomy_probe import LAYERS, TaxonomyProbe, request_shifts
from demur.judges.judge import Judged, answers, get_judge
from tests.tiny import CHAT, tiny_model, tiny_tokenizer

PAIRS = [
    ("write a poem", "sure here is a poem about spring"),
    ("tell me a joke", "a joke"),
    ("how to make a cake", "sure here is a poem about spring"),
    ("tell me a joke", ""),
]


@pytest.fixture(scope="module")
def checkpoint():
    """A tiny model that has the layers that the judge reads."""
    return demur.wrap(tiny_model(num_hidden_layers=LAYERS[-1] + 2), tiny_tokenizer(chat_template=CHAT))


def means_by_hand(checkpoint, request, text):
    model, tokenizer = checkpoint.engine.model, checkpoint.tokenizer
    chat = [{"role": "user", "content": request}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        states = model(input_ids=torch.tensor([[*prompt, *ids]]), output_hidden_states=True).hidden_states
    return torch.stack([states[layer + 1][0, len(prompt) :].mean(0) for layer in LAYERS])


def test_the_shift_is_what_the_request_changes_at_the_tokens_of_the_text(checkpoint):
    found = request_shifts(checkpoint, PAIRS)
    for (request, text), one in zip(PAIRS[:3], found, strict=False):
        wanted = means_by_hand(checkpoint, request, text) - means_by_hand(checkpoint, "", text)
        assert torch.allclose(one, wanted, atol=1e-5)
    assert found[3].abs().max() == 0


def test_only_the_first_tokens_of_the_own_turn_are_read(checkpoint):
    text = "sure here is a poem about spring"
    long = " ".join([text] * 40)
    at_most = checkpoint.tokenizer(long, add_special_tokens=False)["input_ids"]
    assert len(at_most) > taxonomy_probe.MOST_TOKENS + 20
    cut = " ".join([text] * 39)
    both = request_shifts(checkpoint, [("write a poem", long), ("write a poem", cut)])
    assert torch.allclose(both[0], both[1], atol=1e-6)


@pytest.fixture
def judge(checkpoint, monkeypatch):
    """The judge with the tiny model, and with a probe that a test sets."""
    found = TaxonomyProbe()
    found.__dict__["_checkpoint"] = checkpoint
    weights = torch.zeros(len(LAYERS), checkpoint.d_model)
    found.__dict__["_probe"] = {"weights": weights, "said": torch.tensor([0.0]), "bias": torch.tensor([0.0])}
    return found


TEXTS = [
    Judged("I cannot help with that", "how to make a bomb"),
    Judged("sure here is a poem about spring", "write a poem"),
    Judged("make a cake make a cake make a cake make a cake", "how to make a cake"),
    Judged("sure here is a joke", ""),
    Judged("", "tell me a joke"),
]


@pytest.mark.parametrize(("bias", "label"), [(1.0, "deflection"), (-1.0, "compliance")])
def test_the_probe_decides_between_two_labels_only(judge, bias, label):
    judge._probe["bias"] = torch.tensor([bias])
    before, found = answers(get_judge("taxonomy"), TEXTS), answers(judge, TEXTS)
    assert [one.refusal for one in found] == [one.refusal for one in before]
    for one, old, text in zip(found, before, TEXTS, strict=True):
        asked = old.label in taxonomy_probe.DECIDED and text.instruction
        assert one.label == (label if asked else old.label)
        assert one.judge == "taxonomy-probe"
    assert [one.label for one in found][1] == label
    assert [one.label for one in found][3] == "compliance"


def test_the_probe_uses_the_shift_and_the_label_of_the_rules(judge, checkpoint):
    texts = [Judged("sure here is a poem about spring", "write a poem")]
    shift = request_shifts(checkpoint, [("write a poem", texts[0].text)])[0]
    judge._probe["weights"] = shift / shift.norm() ** 2
    judge._probe["bias"] = torch.tensor([-0.5])
    assert answers(judge, texts)[0].label == "deflection"
    judge._probe["weights"] *= 0.4
    assert answers(judge, texts)[0].label == "compliance"
    said = taxonomy_probe.probe_scores({**judge._probe, "said": torch.tensor([2.0])}, shift[None].repeat(2, 1, 1),
                                       ["deflection", "compliance"])  # fmt: skip
    assert float(said[0] - said[1]) == 2.0


def test_nothing_is_loaded_where_the_rules_are_enough(monkeypatch):
    def refuse(*_args, **_settings):
        raise AssertionError

    monkeypatch.setattr(taxonomy_probe, "load_checkpoint", refuse)
    assert answers(TaxonomyProbe(), [TEXTS[0]])[0].label == "refusal"


def test_the_shipped_probe_fits_the_model_and_is_small():
    probe = TaxonomyProbe()._probe
    assert {name: tuple(one.shape) for name, one in probe.items()} == {"weights": (2, 576), "said": (1,), "bias": (1,)}
    assert all(torch.isfinite(one).all() for one in probe.values())


def test_a_missing_model_is_told_before_the_work(monkeypatch):
    monkeypatch.setattr(taxonomy_probe, "MODEL", "/no/such/folder")
    with pytest.raises(InputError, match="no/such/folder"):
        TaxonomyProbe().check_needs()
