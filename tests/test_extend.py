"""Parts from outside: the package of docs/extend.md is installed, and a tiny study runs with one part of each kind."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import demur
from demur.core.part_kinds import KINDS
from tests.tiny import HARMFUL
from tests.tiny_study import make_checkpoint

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "examples" / "extend"
PROJECT = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def install(folder: Path) -> None:
    """What pip leaves of a package beside its code: its name and its entry points."""
    made = folder / "my_parts-0.1.0.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: my-parts\nVersion: 0.1.0\n")
    groups = PROJECT["entry-points"].items()
    text = "".join(f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in parts.items()) for group, parts in groups)
    (made / "entry_points.txt").write_text(text)


def command(*words: str, paths: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    """`demur` in a process of its own, with these folders importable."""
    code = "from demur.cli.main import main; main()"
    search = os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a run with a part of each kind, what the command printed, and the paths of the package."""
    folder = tmp_path_factory.mktemp("extended")
    install(folder / "site")
    for name, seed in (("base", 1), ("chat", 2)):
        make_checkpoint(folder / name, seed=seed)
    splits = ["train"] * 4 + ["validation"] + ["test"] * 3
    rows = [{"instruction": row, "split": split} for row, split in zip(HARMFUL, splits, strict=True)]
    (folder / "harmful.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "words.toml").write_text('name = "listed"\nkind = "words"\nwords = ["poem"]\n')
    (folder / "study.toml").write_text(f"""
name = "extended"
allow_overlap = true
max_new_tokens = 3
judges = ["prefix", "short", "{folder}/words.toml"]
measurements = ["by-layer", {{ name = "norms", position = -1 }}]
engine = "counting"
[checkpoints.base]
model = "{folder}/base"
prompts = ["letter"]
[checkpoints.chat]
model = "{folder}/chat"
prompts = ["letter"]
[instructions]
harmful = {{ source = "{folder}/harmful.jsonl", test = 3 }}
harmless = {{ source = "colours", test = 3 }}
[direction]
pairs = 4
layers = [1]
estimator = "median"
[controls]
random = 1
shuffled = 1
[[interventions]]
kind = "scale"
factor = 0.0
[[interventions]]
kind = "add"
coefficient = 1.0
""")
    paths = (folder / "site", PACKAGE)
    done = command("run", str(folder / "study.toml"), "--out", str(folder / "run"), "--quiet", paths=paths)
    assert done.returncode == 0, done.stderr
    return folder / "run", done.stdout, paths


@pytest.fixture(scope="module")
def summary(made):
    return json.loads((made[0] / "summary.json").read_text(encoding="utf-8"))


def test_every_extension_point_has_an_example():
    assert {kind.group for kind in KINDS.values()} == set(PROJECT["entry-points"])


def test_the_page_shows_the_code_that_runs():
    page = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    for path in sorted((PACKAGE / "my_parts").glob("*.py")):
        assert path.read_text(encoding="utf-8").strip() in page, path.name
    for group, parts in PROJECT["entry-points"].items():
        assert f'[project.entry-points."{group}"]' in page
        assert all(f'{name} = "{target}"' in page for name, target in parts.items())


def test_an_edit_is_in_summary_table_and_page(made, summary):
    folder, printed, _ = made
    cells = [cell for cell in summary["cells"] if cell["intervention"] == "scale" and cell["judge"] == "prefix"]
    # Two checkpoints, each with both directions and both controls.
    assert len(cells) == 8
    assert {cell["settings"]["factor"] for cell in cells} == {0.0}
    assert {cell["expected"] for cell in cells} == {-1}
    assert summary["edits"]["scale"]["done"] == "scaled"
    assert any("caling" in claim["text"] for claim in summary["claims"])
    assert "scale" in printed
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Refusal rates with each direction scaled" in page
    assert (folder / "figures" / "scaled.svg").is_file()
    assert "scale" in (folder / "tables" / "results.csv").read_text(encoding="utf-8")


def test_an_estimator_and_a_control_make_the_directions(made, summary):
    by_name = {each["name"]: each for each in summary["directions"]}
    assert set(by_name) == {"base", "chat", "random-1", "shuffled-1"}
    assert by_name["shuffled-1"]["control"]
    assert by_name["shuffled-1"]["control_kind"] == "shuffled"
    own = demur.load_direction(made[0] / "directions" / "base.safetensors")
    shuffled = demur.load_direction(made[0] / "directions" / "shuffled-1.safetensors")
    assert own.provenance["method"] == by_name["base"]["method"] == "median"
    assert "median" in (made[0] / "tables" / "directions.tex").read_text(encoding="utf-8")
    matched = demur.load_direction(made[0] / "directions" / f"{by_name['shuffled-1']['stands_beside']}.safetensors")
    assert shuffled.vector.sort().values.tolist() == matched.vector.sort().values.tolist()
    assert shuffled.vector.tolist() != matched.vector.tolist()
    assert any(cell["control_kind"] == "shuffled" for cell in summary["cells"])


def test_a_judge_has_verdicts_and_labels(made, summary):
    assert summary["judges"]["short"] == 1
    assert summary["judge_labels"]["short"] == ["short", "long"]
    judged = [cell for cell in summary["cells"] if cell["judge"] == "short"]
    assert judged
    assert all(sum(cell["labels"].values()) == cell["n"] for cell in judged)
    assert "short" in (made[0] / "report.html").read_text(encoding="utf-8")
    frame = demur.open_run(made[0]).completions()
    assert {"short_label", "short_refusal"} <= set(frame.columns)


def test_a_kind_of_judge_has_verdicts_by_the_name_in_its_file(made, summary):
    assert summary["judges"]["listed"] == 1
    frame = demur.open_run(made[0]).completions()
    assert (frame["listed_refusal"] == frame["completion"].str.contains("poem", case=False)).all()


def test_a_judge_format_asks_and_reads(made):
    code = (
        "from demur.judges.asked.judge_format import judge_format as found; polite = found('polite'); "
        "print(polite.question('a', 'b').messages[0][1].endswith('b'), polite.read('Yes.').label, polite.read('maybe'))"
    )
    search = os.pathsep.join(map(str, made[2]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": search})
    assert done.stdout == "True polite None\n", done.stderr


def test_a_measurement_is_in_the_summary(summary):
    found = [each for each in summary["measurements"] if each["name"] == "norms"]
    assert sorted(each["subject"] for each in found) == ["base/letter", "chat/letter"]
    for each in found:
        assert each["settings"] == {"position": -1}
        assert len(each["summary"]["norms"]) == 3
        assert all(norm > 0 for norm in each["summary"]["norms"])


def test_an_engine_ran_the_checkpoints(summary):
    assert {facts["engine"] for facts in summary["checkpoints"].values()} == {"counting"}


def test_a_section_is_on_the_page_and_in_files(made):
    page = (made[0] / "report.html").read_text(encoding="utf-8")
    assert "Length of completions without an edit" in page
    for name in ("figures/lengths.svg", "figures/lengths.pdf"):
        assert (made[0] / name).stat().st_size > 0


def test_prompts_and_instructions_were_used(summary):
    assert {arm["template"] for arm in summary["arms"]} == {"Dear model,\n{instruction}\nYours\n"}
    assert summary["instructions"]["harmless"]["n"] == 3


def test_an_export_writes_the_run(made):
    folder, _, paths = made
    done = command("export", str(folder), "--format", "markdown", paths=paths)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("| target | instructions |")
    assert "| scale |" in done.stdout


def test_a_run_is_reported_where_the_package_is_not_installed(made, summary):
    folder, _printed, _ = made
    done = command("report", str(folder), "--quiet")
    assert done.returncode == 0, done.stderr
    again = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert again["cells"] == summary["cells"]
    assert again["claims"] == summary["claims"]
    assert "scale" in done.stdout
