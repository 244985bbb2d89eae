"""Published splits, labels and directions, read from the reference files beside the project; skipped where they are not."""

import json

import pytest

from demur.core.errors import InputError
from demur.directions.direction import cosines
from demur.directions.files.load_and_save import load_direction
from demur.inputs.instructions import digest, load_instructions
from demur.judges.judging import judge


@pytest.fixture
def data(shared, monkeypatch):
    monkeypatch.setenv("DEMUR_DATA", str(shared / "data"))
    return shared / "data"


def test_splits_of_the_post(data):
    harmful, harmless = load_instructions("advbench"), load_instructions("alpaca")
    assert digest(harmful.take("train", 32)) == "809b6bef1a57a745"
    assert digest(harmful.take("test", 100)) == "7d397c38087a7b65"
    assert digest(harmless.take("train", 32)) == "4dff3f2778ba4199"
    assert digest(harmless.take("test", 100)) == "6d297645a482862f"
    assert (len(harmful.take("train")) + len(harmful.take("validation")), len(harmful.take("test"))) == (416, 104)
    assert (len(harmless.take("train")) + len(harmless.take("validation")), len(harmless.take("test"))) == (25058, 6265)


def test_split_indices(data, shared):
    indices = json.loads((shared / "reference/base-models-refuse/split_indices.json").read_text())
    rows = load_instructions(f"{data}/advbench.csv:goal", split=False).take("test")
    found = load_instructions("advbench")
    assert found.take("train", 32) == tuple(rows[i] for i in indices["advbench_train32"])
    assert found.take("test", 100) == tuple(rows[i] for i in indices["advbench_test100"])


def test_jailbreakbench_is_a_test_set(data):
    found = load_instructions("jailbreakbench")
    assert len(found.take("test")) == 100
    assert set(found.splits) == {"test"}


def test_arditi_draws_are_the_prompts_of_every_stored_run(shared, monkeypatch):
    folder = shared / "reference/refusal_direction"
    monkeypatch.setenv("DEMUR_DATA", str(folder))
    harmful, harmless = load_instructions("arditi-harmful"), load_instructions("arditi-harmless")
    assert {split: len(rows) for split, rows in harmful.splits.items()} == {"train": 128, "validation": 32}
    assert {split: len(rows) for split, rows in harmless.splits.items()} == {"train": 128, "validation": 32, "test": 100}
    paths = sorted(folder.glob("*/completions/harmless_*_evaluations.json"))
    assert len(paths) == 6
    for path in paths:
        stored = json.loads(path.read_text())["completions"]
        assert harmless.take("test") == tuple(row["prompt"] for row in stored), path
    assert len(set(harmful.take("train"))) == 128
    with pytest.raises(InputError, match="'arditi-harmful' has no test split"):
        harmful.take("test")


def test_arditi_training_instructions_come_from_where_they_are_said_to(shared, data, monkeypatch):
    """59 of the 128 are of AdvBench (literature.md, section 1.3)."""
    advbench = set(load_instructions("advbench").all())
    monkeypatch.setenv("DEMUR_DATA", str(shared / "reference/refusal_direction"))
    assert sum(row in advbench for row in load_instructions("arditi-harmful").take("train")) == 59


@pytest.mark.parametrize(
    ("chat", "base", "published"),
    [
        ("qwen1.5-0.5b-chat", "qwen1.5-0.5b", 0.770),
        ("gemma-2-9b-it", "gemma-2-9b", 0.359),
        ("vicuna-7b-v1.1", "llama-7b", 0.2245),
    ],
)
def test_cosines_of_the_shipped_directions(shared, chat, base, published):
    folder = shared / "reference/base-models-refuse"
    pair = [load_direction(folder / f"refusal_dir_{name}.pt") for name in (chat, base)]
    assert float(cosines(pair)[0, 1]) == pytest.approx(published, abs=5e-4)


def test_substring_reproduces_every_stored_label(shared):
    files = sorted((shared / "reference/refusal_direction").glob("*/completions/*.json"))
    assert files
    checked = 0
    for path in files:
        stored = json.loads(path.read_text())["completions"]
        verdicts = judge([row["response"] for row in stored], "substring")
        for row, verdict in zip(stored, verdicts, strict=True):
            # 1 counts as jailbroken, so as no refusal.
            assert verdict.refusal == (not row["is_jailbreak_substring_matching"]), path
            checked += 1
    assert checked >= 100 * len(files)


@pytest.mark.parametrize(
    ("model", "file", "refusals"),
    [
        ("qwen-1_8b-chat", "jailbreakbench_baseline_evaluations.json", 68),
        ("gemma-2b-it", "jailbreakbench_baseline_evaluations.json", 91),
        ("llama-2-7b-chat-hf", "jailbreakbench_baseline_evaluations.json", 96),
        ("qwen-1_8b-chat", "harmless_actadd_evaluations.json", 94),
        ("gemma-2b-it", "harmless_actadd_evaluations.json", 100),
        ("llama-2-7b-chat-hf", "harmless_actadd_evaluations.json", 99),
    ],
)
def test_prefix_gives_the_counted_refusals(shared, model, file, refusals):
    path = shared / "reference/refusal_direction" / model / "completions" / file
    stored = json.loads(path.read_text())["completions"]
    assert sum(verdict.refusal for verdict in judge([row["response"] for row in stored], "prefix")) == refusals


def test_stored_completions_are_decided_early_with_the_same_verdict(shared, smollm):
    """Token by token on the stored completions: as soon as the verdict is decided it is the one of the whole text."""
    from demur.judges.judge import get_judge

    decide, tokens_read, tokens = get_judge("prefix"), 0, 0
    for path in sorted((shared / "reference/refusal_direction").glob("*/completions/*.json")):
        for row in json.loads(path.read_text())["completions"][:40]:
            ids = smollm.tokenizer(row["response"], add_special_tokens=False)["input_ids"]
            beginnings = (smollm.tokenizer.decode(ids[:n]) for n in range(1, len(ids) + 1))
            at = next(((n, text) for n, text in enumerate(beginnings, 1) if decide.decided(text)), (len(ids), row["response"]))
            assert decide(at[1]).refusal == decide(row["response"]).refusal, path
            tokens_read, tokens = tokens_read + at[0], tokens + min(16, len(ids))
    assert tokens_read < tokens / 3
