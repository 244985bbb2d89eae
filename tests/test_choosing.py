"""Selection over a study, losses and the weight edit, through the command line."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.cli.selecting.selection_commands import _run_there
from demur.measurements.selection.ranking import Scored
from demur.study.study_files import load_study
from tests.tiny import HARMFUL, HARMLESS, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    for name, seed in (("base", 1), ("chat", 2)):
        tiny_model("llama", seed=seed, num_hidden_layers=5).save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    for label, rows in (("harmful", HARMFUL), ("harmless", HARMLESS)):
        splits = ["train"] * 4 + ["validation"] * 3 + ["test"]
        lines = [{"instruction": row, "split": split} for row, split in zip(rows, splits, strict=True)]
        (folder / f"{label}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "study.toml").write_text(f"""
name = "tiny"
[checkpoints.base]
model = "{folder}/base"
prompts = ["USER {{instruction}} ASSISTANT :"]
[checkpoints.chat]
model = "{folder}/chat"
prompts = ["USER {{instruction}} ASSISTANT"]
[instructions]
harmful = {{ source = "{folder}/harmful.jsonl", test = 1 }}
harmless = {{ source = "{folder}/harmless.jsonl", test = 1 }}
[direction]
pairs = 4
layers = [1]
""")
    return folder / "study.toml"


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_select_chooses_for_each_arm_and_for_all(study, tmp_path):
    result = invoke("select", study, "--by", "separation", "--out", tmp_path, "--quiet")
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "selection-separation.json").read_text())
    assert [one["arm"].partition("/")[0] for one in facts] == ["base", "chat"]
    assert {place["position"] for place in facts[0]["places"]} == {-2, -1}
    assert {place["position"] for place in facts[1]["places"]} == {-1}
    directions = [demur.load_direction(path) for path in sorted(tmp_path.glob("*.safetensors"))]
    assert [[one.position, one.layer] for one in directions] == [one["best"] for one in facts]
    # Together only the position that both prompts have, and the place whose worst arm does best.
    both = [
        {place["layer"]: place for place in one["places"] if place["position"] == -1 and not place["dropped"]} for one in facts
    ]
    worst = {layer: min((one[layer]["auroc"], one[layer]["gap"]) for one in both) for layer in both[0]}
    best = max(worst, key=lambda layer: worst[layer])
    assert f"--set direction.position=-1 --set direction.layers={best}" in result.output
    assert load_study(study, ["direction.position=-1", f"direction.layers={best}"]).direction.layers == [best]


def test_an_arm_without_refusals_says_so_and_stops_no_other(study, tmp_path):
    result = invoke("select", study, "--by", "arditi", "--out", tmp_path, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.output.count("too few to tell how its refusals begin") == 2
    assert "none, because an arm has no selection" in result.output
    assert not list(tmp_path.glob("*.safetensors"))


def test_cosmic_runs_over_a_study(study, tmp_path):
    result = invoke("select", study, "--by", "cosmic", "--out", tmp_path, "--quiet")
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "selection-cosmic.json").read_text())
    places = [place for one in facts for place in one["places"] if "last" not in place["dropped"]]
    assert all(("kl" in place) != ("kl_at_least" in place) for place in places)


def test_bad_requests_are_refused(study):
    result = invoke("select", study, "--by", "cosmik")
    assert (result.exit_code, "did you mean 'cosmic'" in result.stderr) == (2, True)
    rows = study.with_name("harmful.jsonl").read_text().splitlines()
    short = study.with_name("short.jsonl")
    short.write_text("\n".join([*rows[:5], rows[7]]))
    result = invoke("select", study, "--by", "cosmic", "--set", f"instructions.harmful.source={short}")
    assert (result.exit_code, "has too few validation instructions (1)" in result.stderr) == (2, True)


def test_loss_and_equivalence_print_what_the_library_gives(study, tmp_path):
    model = study.with_name("base")
    raw = torch.randn(32, generator=torch.Generator().manual_seed(1))
    direction = demur.from_raw(raw, name="d", layer=1)
    path = direction.save(tmp_path / "d.safetensors")
    texts = tmp_path / "texts.txt"
    texts.write_text("make a cake\nwrite a poem about spring\n")
    result = invoke("loss", "--model", model, "--texts", texts, "--direction", path, "--quiet")
    assert result.exit_code == 0, result.output
    checkpoint = demur.load_checkpoint(str(model))
    edits = [None, demur.ablate(direction), demur.add(direction, -1.0, unit="raw")]
    expected = demur.text_losses(checkpoint, texts.read_text().splitlines(), edits)
    assert [line.split()[0] for line in result.output.splitlines()] == [f"{loss.mean:.4f}" for loss in expected]
    result = invoke("equivalence", "--model", model, "--direction", path)
    assert result.exit_code == 0, result.output
    assert demur.equivalence(checkpoint, direction).explanation in result.output


def test_the_command_that_follows_a_choice_keeps_the_settings_and_reads_where_it_was_scored(study):
    mine = ("checkpoints.base.model=/my models/base", "direction.site=resid_post", "direction.layers=[3]")
    result = invoke("select", study, "--by", "separation", "--quiet", *(word for one in mine[1:] for word in ("--set", one)))
    assert result.exit_code == 0, result.output
    command = shlex.split(result.output.splitlines()[-1])
    assert command[:3] == ["demur", "run", str(study)]
    sets = command[4::2]
    assert [one.partition("=")[0] for one in sets] == ["direction.position", "direction.layers", "direction.site"]
    followed = load_study(study, sets)
    assert (followed.direction.site, followed.direction.layers) != ("resid_post", [3])
    assert _run_there(str(study), mine[:1], Scored(-1, 2, 1.0, {}), "resid_pre") == (
        f"demur run {shlex.quote(str(study))} --set 'checkpoints.base.model=/my models/base' "
        "--set direction.position=-1 --set direction.layers=2"
    )


def test_instructions_that_candidates_are_made_of_do_not_score_them(study, tmp_path):
    text = (study.parent / "harmful.jsonl").read_text().splitlines()
    first = json.loads(text[0])
    (tmp_path / "leak.jsonl").write_text("\n".join([*text, json.dumps({**first, "split": "validation"})]))
    result = invoke(
        "select",
        study,
        "--set",
        f"instructions.harmful.source={tmp_path}/leak.jsonl",
        "--by",
        "separation",
        "-q",
    )
    assert result.exit_code == 2
    assert "both the training and the validation part" in result.stderr


def test_a_prompt_that_ends_with_the_instruction_stops_no_other_and_no_score_is_lost(study, tmp_path):
    settings = ["--set", 'checkpoints.base.prompts=["Q: {instruction}", "USER {instruction} ASSISTANT :"]']
    result = invoke("select", study, *settings, "--by", "separation", "--out", tmp_path, "-q")
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "selection-separation.json").read_text())
    assert ["no tokens after the instruction" in one["problem"] for one in facts] == [True, False, False]
    assert all(one["places"] for one in facts[1:])


def test_losses_in_units_and_at_a_layer(study, tmp_path):
    (tmp_path / "texts.txt").write_text("one two three\nfour five six seven\n")
    torch.save(torch.nn.functional.normalize(torch.randn(32), dim=0), tmp_path / "bare.pt")
    given = ["loss", "-m", study.parent / "base", "-t", tmp_path / "texts.txt", "-d", tmp_path / "bare.pt", "-q"]
    for more, said in (([], "raw norm"), (["--unit", "unit"], "--layer"), (["--unit", "residual"], "known: raw, unit")):
        refused = invoke(*given, *more)
        assert refused.exit_code == 2
        assert said in refused.stderr
    result = invoke(*given, "--unit", "unit", "--layer", "2", "--add", "3")
    assert result.exit_code == 0, result.output
    assert "add 3 unit bare" in result.stdout.splitlines()[-1]


def test_effect_needs_edits_and_a_checkpoint_that_refuses(study):
    result = invoke("select", study, "--quiet")
    assert (result.exit_code, "no intervention of this study" in result.stderr) == (2, True)
    text = study.read_text() + '\n[[interventions]]\nkind = "ablate"\n'
    edited = study.with_name("edited.toml")
    edited.write_text(text)
    result = invoke("select", edited, "--quiet")
    assert (result.exit_code, "it hardly refuses harmful instructions" in result.stderr) == (1, True)
