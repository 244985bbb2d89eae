"""One's own pair in one call: its study, its prompt formats, its commented file, and wrong guesses at the command."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.inputs.prompts import prompt_format
from demur.runs.pair import pair_study
from demur.runs.selecting.pair_formats import pair_formats
from demur.study.commented_study import commented_toml
from demur.study.selected_settings import open_keys
from demur.study.study_files import load_study
from tests.tiny import CHAT, HARMFUL, HARMLESS, tiny_tokenizer
from tests.tiny_study import make_adapter, make_checkpoint

WITH_BOS = "<bos> {% for m in messages %}user {{ m['content'] }} {% endfor %}assistant :"
OTHER = "<bos> {% for m in messages %}User {{ m['content'] }} {% endfor %}Assistant :"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("pair")
    for name, seed in (("base", 1), ("chat", 2)):
        make_checkpoint(where / name, seed=seed)
    make_adapter(where / "base", where / "adapter")
    for label, rows in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        splits = ["train"] * 4 + ["validation"] * 2 + ["test"] * 2
        lines = [{"instruction": row, "split": split} for row, split in zip(rows, splits, strict=True)]
        (where / f"{label}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return where


def sets(folder):
    return (str(folder / "harmful.jsonl"), str(folder / "harmless.jsonl"))


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_shared_template_is_the_only_format():
    found = pair_formats(tiny_tokenizer(chat_template=CHAT), tiny_tokenizer(chat_template=CHAT))
    assert (found.names, dict(found.texts), found.notes) == (("native",), {}, ())


def test_a_base_without_a_template_gets_plain_text_and_the_chat_template():
    chat = tiny_tokenizer(chat_template=WITH_BOS)
    found = pair_formats(tiny_tokenizer(), chat)
    assert found.names == ("user-assistant", "chat-template")
    lent = prompt_format(found.texts["chat-template"], SimpleNamespace(tokenizer=tiny_tokenizer()))
    native = prompt_format("native", SimpleNamespace(tokenizer=chat))
    assert lent.encode(HARMFUL) == native.encode(HARMFUL)


def test_another_template_on_the_base_is_not_used():
    found = pair_formats(tiny_tokenizer(chat_template=OTHER), tiny_tokenizer(chat_template=WITH_BOS))
    assert found.names == ("user-assistant", "chat-template")


def test_a_template_that_the_base_cuts_otherwise_is_not_shared():
    base = tiny_tokenizer()
    base.add_tokens(["poem."])
    found = pair_formats(base, tiny_tokenizer(chat_template=WITH_BOS))
    assert found.names == ("user-assistant",)
    assert "makes other tokens of it" in found.notes[0]


def test_a_template_without_the_first_token_of_a_text_is_not_shared():
    # This tokenizer begins every text with <bos>, and the template does not.
    found = pair_formats(tiny_tokenizer(), tiny_tokenizer(chat_template=CHAT))
    assert found.names == ("user-assistant",)
    assert "start of a chat" in found.notes[0]


def test_no_template_at_all_is_told():
    found = pair_formats(tiny_tokenizer(), tiny_tokenizer())
    assert found.names == ("user-assistant",)
    assert "no chat template" in found.notes[0]


def test_the_study_of_a_pair_selects_layer_and_dose(folder):
    made = pair_study(str(folder / "base"), f"{folder / 'base'}+{folder / 'adapter'}", instructions=sets(folder))
    study = made.study
    assert open_keys(study) == ("direction.layers", "interventions.2.coefficient")
    assert study.checkpoints["chat"].adapter == str(folder / "adapter")
    assert study.checkpoints["base"].adapter is None
    # As many instructions as the sets have.
    assert (study.direction.pairs, study.instructions["harmful"].test, study.selection.instructions) == (4, 2, 2)
    quick = pair_study(str(folder / "base"), str(folder / "chat"), quick=True).study
    assert (quick.direction.pairs, quick.instructions["harmful"].test, quick.selection.instructions) == (32, 24, 12)


def test_a_folder_with_a_plus_in_its_name_is_a_folder(folder, tmp_path):
    make_checkpoint(tmp_path / "a+b", seed=3)
    made = pair_study(str(folder / "base"), str(tmp_path / "a+b"), instructions=sets(folder))
    assert (made.study.checkpoints["chat"].model, made.study.checkpoints["chat"].adapter) == (str(tmp_path / "a+b"), None)


def test_pairs_that_cannot_be_compared_say_why(folder, tmp_path):
    make_checkpoint(tmp_path / "wide", seed=3, hidden_size=64)
    with pytest.raises(InputError, match="directions cannot be exchanged"):
        pair_study(str(folder / "base"), str(tmp_path / "wide"))
    with pytest.raises(InputError, match="two different ones"):
        pair_study(str(folder / "base"), str(folder / "base"))
    with pytest.raises(InputError, match="adapter"):
        pair_study(str(folder / "base"), f"{folder / 'base'}+{folder / 'chat'}")


LLAMA = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 128_256}
GEMMA = {"model_type": "gemma2", "hidden_size": 3584, "num_hidden_layers": 42, "vocab_size": 256_000}


def large(folder, config, start):
    """The files of a checkpoint of real size that are read before its weights; the weights themselves cannot be read."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"no weights")
    vocabulary = {f"t{number}": number - start for number in range(start, start + config["vocab_size"])}
    merges = [[f"t{number}", "x"] for number in range(config["vocab_size"])]
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocabulary, "merges": merges}}))
    return folder


@pytest.mark.parametrize(
    ("chat", "start", "words"),
    [
        (GEMMA, 0, "42 layers of width 3584 and 'base' has 32 of 4096, so their directions cannot be exchanged"),
        pytest.param(
            {**LLAMA, "num_hidden_layers": 16}, 0, "16 layers of width 4096 and 'base' has 32 of 4096", marks=pytest.mark.soak
        ),
        pytest.param(LLAMA, 1_000_000, "have no token in common, so no text is the same input for both", marks=pytest.mark.soak),
    ],
)
def test_a_pair_of_real_size_that_cannot_be_compared_is_refused_without_torch(tmp_path, chat, start, words):
    base, other = large(tmp_path / "base", LLAMA, 0), large(tmp_path / "chat", chat, start)
    code = (
        "import sys\n"
        "from demur.cli.main import app\n"
        "try:\n"
        f"    app(['pair', {str(base)!r}, {str(other)!r}])\n"
        "finally:\n"
        "    print(sorted({'torch', 'transformers', 'pandas', 'scipy'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (result.returncode, result.stdout) == (2, "[]\n")
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_init_writes_the_study_of_pair_with_comments(folder, tmp_path):
    arguments = (folder / "base", folder / "chat", "--instructions", *sets(folder))
    out = tmp_path / "mine.toml"
    result = invoke("init", *arguments, "--out", out)
    assert result.exit_code == 0, result.output
    made = pair_study(str(folder / "base"), str(folder / "chat"), instructions=sets(folder)).study
    assert load_study(out) == made
    assert out.read_text() == commented_toml(made)
    assert out.read_text().count("\n# ") >= 8
    again = invoke("init", *arguments, "--out", out)
    assert again.exit_code == 2
    assert "exists already" in again.output


def test_a_prompt_given_as_a_text_has_a_readable_name_in_what_init_writes(folder, tmp_path):
    text, out = "Question: {instruction}\\nAnswer:", tmp_path / "mine.toml"
    pair = (folder / "base", folder / "chat", "-p", text, "-i", *sets(folder))
    result = invoke("init", *pair, "--out", out)
    assert result.exit_code == 0, result.output
    found = load_study(out)
    assert found.checkpoints["base"].prompts == found.checkpoints["chat"].prompts == ["question-answer"]
    assert found.prompts == {"question-answer": "Question: {instruction}\nAnswer:"}


def test_a_dry_run_shows_the_plan_and_loads_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("pair", folder / "base", folder / "chat", "--instructions", *sets(folder), "--dry-run")
    assert result.exit_code == 0, result.output
    assert "selects  direction.layers, interventions.2.coefficient" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_pair_that_refuses_nothing_says_what_to_do(folder, tmp_path):
    result = invoke(
        "pair", folder / "base", folder / "chat", "--instructions", *sets(folder), "--out", tmp_path / "run", "--quiet"
    )
    assert result.exit_code == 1, result.output
    assert "no checkpoint shows" in result.output
    assert "direction.layers" in result.output


@pytest.mark.parametrize("guess", [("owner/base", "owner/chat"), ("run", "--base", "a/b"), ("run", "--chat", "a/b")])
def test_wrong_guesses_name_the_command(guess):
    result = invoke(*guess)
    assert result.exit_code == 2
    assert "demur pair" in result.output


def test_the_python_door_is_the_same(folder, tmp_path):
    with pytest.raises(demur.WorkError, match="no checkpoint shows"):
        demur.pair(str(folder / "base"), str(folder / "chat"), instructions=sets(folder), out=tmp_path / "run")
