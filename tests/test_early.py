"""Completions that end where their verdict is decided: the same verdicts as full ones, over the phrases and over stored texts."""

import itertools
import json

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.engine.checkpoints import wrap
from demur.judges.early_stopping import check_foreseen, enough_for
from demur.judges.judge import get_judge
from demur.judges.prefix import PHRASES
from tests.tiny import tiny_model, tiny_tokenizer
from tests.tiny_study import make_study

JUDGE = get_judge("prefix")
ENDINGS = ("", " ", " help", ", but", "\n\n", "\ufffd", "o", "'t")


def tiny_checkpoint():
    return wrap(tiny_model("llama"), tiny_tokenizer())


def beginnings():
    """Every beginning of every phrase, also behind white space, within a longer text, and with one character changed."""
    for phrase in PHRASES:
        for cut in range(len(phrase) + 1):
            yield phrase[:cut]
            yield "\n " + phrase[:cut]
            yield phrase[:cut] + "x"
            yield phrase[:cut] + "\ufffd"
        yield phrase.lower()
        yield f"Well, {phrase}"


def test_a_decided_verdict_stands_under_every_continuation():
    texts = list(beginnings())
    decided = [text for text in texts if JUDGE.decided(text)]
    assert 0 < len(decided) < len(texts)
    continuations = [*ENDINGS, *(phrase[cut:] for phrase in PHRASES for cut in range(len(phrase)))]
    for text in decided:
        # What looks like a broken character may become another one.
        whole = text.rstrip("\ufffd")
        assert len({JUDGE(whole + more).refusal for more in continuations}) == 1, text


def test_an_undecided_verdict_may_become_either():
    for text in {text.rstrip("\ufffd") for text in beginnings() if not JUDGE.decided(text)}:
        begun = text.lstrip()
        completed = [phrase for phrase in PHRASES if phrase.startswith(begun)]
        assert JUDGE(completed[0]).refusal
        assert not JUDGE(text + "\u2603").refusal


def test_stored_completions_have_the_verdicts_of_their_decided_beginnings(shared):
    files = sorted((shared / "reference/refusal_direction").glob("*/completions/*.json"))
    if not files:
        pytest.skip("needs the published completions")
    texts = [entry["response"] for file in files for entry in json.loads(file.read_text())["completions"]]
    assert len(texts) > 500
    for text in texts:
        end = next((cut for cut in range(len(text) + 1) if JUDGE.decided(text[:cut])), len(text))
        assert JUDGE(text[:end]).refusal == JUDGE(text).refusal, text[:80]


def test_generation_until_the_verdict():
    checkpoint = tiny_checkpoint()
    prompt = demur.prompt_format("{instruction}", checkpoint)
    instructions = [" ".join(pair) for pair in itertools.permutations(["cake", "bomb", "poem", "kill"], 2)]
    full = demur.generate(checkpoint, instructions, prompt, max_new_tokens=8)[0]
    cut = demur.generate(checkpoint, instructions, prompt, max_new_tokens=8, until_verdict="prefix")[0]
    assert all(whole.token_ids[: len(short.token_ids)] == short.token_ids for whole, short in zip(full, cut, strict=True))
    assert sum(len(short.token_ids) for short in cut) < sum(len(whole.token_ids) for whole in full)
    assert [v.refusal for v in demur.judge(cut)] == [v.refusal for v in demur.judge(full)]


@pytest.mark.parametrize("name", ["substring", "taxonomy"])
def test_a_judge_of_whole_completions_is_refused(name):
    with pytest.raises(InputError, match=f"{name!r} needs whole completions"):
        check_foreseen(["prefix", name])


def test_a_tokenizer_that_takes_back_spaces_is_refused():
    checkpoint = tiny_checkpoint()
    checkpoint.tokenizer.clean_up_tokenization_spaces = True
    with pytest.raises(InputError, match="removes spaces"):
        enough_for(["prefix"], checkpoint.tokenizer)


def test_a_study_until_its_verdicts(tmp_path):
    study, cells = make_study(tmp_path, max_new_tokens=8), {}
    only = ["--set", 'judges=["prefix"]', "--quiet"]
    for flags in ((), ("--until-verdict",)):
        out = tmp_path / f"run{len(flags)}"
        result = CliRunner().invoke(app, ["run", str(study), "--out", str(out), *only, *flags])
        assert result.exit_code == 0, result.output
        cells[flags] = [(c["target"], c["n"], c["refusals"]) for c in json.loads((out / "summary.json").read_text())["cells"]]
    assert len(set(map(tuple, cells.values()))) == 1
    lengths = [demur.open_run(tmp_path / f"run{n}").completions()["n_tokens"].sum() for n in (0, 1)]
    assert lengths[1] < lengths[0]
    other = CliRunner().invoke(app, ["run", str(study), "--out", str(tmp_path / "run0"), *only, "--until-verdict"])
    assert (other.exit_code, "another study" in other.stderr) == (2, True)


def test_a_study_with_a_judge_of_whole_completions_is_refused(tmp_path):
    study, out = make_study(tmp_path), tmp_path / "run"
    changes = ["--until-verdict", "--set", 'judges=["prefix", "taxonomy"]']
    result = CliRunner().invoke(app, ["run", str(study), "--out", str(out), *changes])
    assert result.exit_code == 2
    assert "'taxonomy' needs whole completions" in result.stderr
