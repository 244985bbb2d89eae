"""demur generate with texts, standard input and no file; demur doctor with its checkpoint as an argument."""

import json

import pytest
import torch
from typer.testing import CliRunner

from demur.cli.main import app
from demur.directions.direction import from_raw
from tests.tiny_study import make_checkpoint


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("generate") / "base")


def generate(base, *more, **options):
    common = ["generate", "-m", str(base), "-p", "chatml", "--max-new-tokens", "3", "--quiet"]
    return CliRunner().invoke(app, [*common, *map(str, more)], **options)


def test_a_text_is_completed_and_printed(base, tmp_path):
    out = tmp_path / "rows.jsonl"
    assert generate(base, "--instruction", "user", "--out", out).exit_code == 0
    (row,) = map(json.loads, out.read_text().splitlines())
    printed = generate(base, "--instruction", "user")
    assert (printed.exit_code, printed.stdout, row["instruction"]) == (0, row["completion"] + "\n", "user")


@pytest.mark.parametrize("more", [(), ("--instruction", "-"), ("-i", "-")])
def test_standard_input_gives_an_instruction_a_line(base, more):
    printed = generate(base, *more, input="user\r\n\nassistant one\n")
    assert printed.exit_code == 0, printed.output
    assert [line for line in printed.stdout.splitlines() if line.startswith(">")] == ["> user", "> assistant one"]
    for text in ("user", "assistant one"):
        assert f"> {text}\n{generate(base, '--instruction', text).stdout}" in printed.stdout


@pytest.mark.parametrize(
    ("more", "text", "words"),
    [
        (("--instruction", "x", "-i", "contrast-harmful"), "", "give one of them"),
        ((), "", "standard input holds no instruction"),
        (("--instruction", " "), "", "an instruction is empty"),
        ((), b"\xff\xfe", "standard input is not UTF-8"),
    ],
)
def test_what_is_no_instruction_is_refused(base, more, text, words):
    result = generate(base, *more, input=text)
    assert (result.exit_code, words in result.stderr) == (2, True), result.output


def test_a_unit_with_ablate_is_refused(base, tmp_path):
    from_raw(torch.ones(32), name="d", layer=1).save(tmp_path / "d.safetensors")
    result = generate(base, "--instruction", "x", "-d", tmp_path / "d.safetensors", "--ablate", "--unit", "raw")
    assert (result.exit_code, "--ablate adds nothing" in result.stderr) == (2, True), result.output


def test_doctor_takes_its_checkpoint_as_an_argument(base):
    def doctor(*arguments):
        return CliRunner().invoke(app, ["doctor", *map(str, arguments), "-p", "chatml"])

    by_option, by_argument = doctor("-m", base), doctor(base)
    assert by_argument.exit_code == 0, by_argument.output
    assert by_argument.stdout.splitlines()[0] == by_option.stdout.splitlines()[0]
    assert doctor(base, "-m", base).exit_code == 0
    assert (doctor(base, "-m", "other").exit_code, doctor().exit_code) == (2, 2)
