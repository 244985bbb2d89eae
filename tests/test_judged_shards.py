"""Shards that judge their own completions: a merge keeps the verdicts, and asks only for what no shard has judged."""

import json
import shutil

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.runs.store import Store
from tests.judge_server import judge_file, judge_server
from tests.tiny_study import contents, make_study

N = 3


@pytest.fixture
def server():
    with judge_server() as found:
        # Tiny models write no refusals, so that this is decided by the length.
        found.reply = lambda text: "label: refusal" if len(text) % 2 else "label: compliance"
        yield found


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def made(path, tmp_path_factory):
    """Three shards, generated and not judged. Measurements need baselines that other shards make too."""
    folder = tmp_path_factory.mktemp("parts")
    for number in range(1, N + 1):
        demur.run(asking(path), folder / str(number), shard=f"{number}/{N}").close()
    return folder


def asking(path, judges=("prefix",)):
    return demur.load_study(path, [f"judges={json.dumps(list(judges))}", 'measurements=["loss"]'])


@pytest.fixture
def parts(made, tmp_path):
    shutil.copytree(made, tmp_path / "parts")
    return [tmp_path / "parts" / str(number) for number in range(1, N + 1)]


def judged(path, parts, judge, numbers=(1, 2, 3)):
    study = asking(path, ["prefix", judge])
    for number in numbers:
        demur.run(study, parts[number - 1], shard=f"{number}/{N}", judge_shard=True).close()


def verdict_cells(folder):
    store = Store.open(folder)
    found = {row.cell for row in store.verdicts()}
    own = set(store.recall("shard")["cells"])
    others = {row.cell for row in store.completions()} - own
    store.close()
    return found, own, others


def test_a_merge_keeps_verdicts_of_shards_and_asks_for_the_others(path, parts, made, server, tmp_path):
    judge = judge_file(tmp_path, server, input_price=1.0, output_price=1.0)
    judged(path, parts, judge, numbers=(2, 3))
    demur.run(asking(path, ["prefix", judge]), parts[0], shard=f"1/{N}").close()
    foreign = 0
    for folder in parts[1:]:
        found, own, others = verdict_cells(folder)
        assert found == own & {row.cell for row in Store.open(folder).completions()}
        foreign += len(others)
    assert foreign  # otherwise a shard would have nothing to leave out
    before = len(server.bodies)
    demur.merge(parts, tmp_path / "all").close()
    # The first shard has not judged: its questions are asked now, and no other.
    asked = {json.dumps(body["messages"]) for body in server.bodies[before:]}
    completions = {row.text for row in Store.open(parts[0]).completions()}
    assert 0 < len(server.bodies) - before == len(asked) <= len(completions)
    # A question that two shards asked has one output.
    different = {json.dumps(body["messages"]) for body in server.bodies}
    assert Store.open(tmp_path / "all").cost("asked") == pytest.approx(110e-6 * len(different))
    # The same again asks nothing, and another judging of the same completions gives the same run.
    before = len(server.bodies)
    demur.merge(parts, tmp_path / "all").close()
    assert len(server.bodies) == before
    late = [tmp_path / f"late-{number}" for number in range(1, N + 1)]
    for number, folder in enumerate(late, start=1):
        shutil.copytree(made / str(number), folder)
        demur.run(asking(path, ["prefix", judge]), folder, shard=f"{number}/{N}").close()
        assert Store.open(folder).verdicts() == []
    demur.merge(late, tmp_path / "late").close()
    assert contents(tmp_path / "all") == contents(tmp_path / "late")
    assert {cell["judge"] for cell in demur.open_run(tmp_path / "all").summary()["cells"]} == {"prefix", "asked"}


def test_a_merge_needs_no_server_if_all_shards_have_judged(path, parts, server, tmp_path, monkeypatch):
    monkeypatch.setenv("SHARD_KEY", "sk-test")
    judged(path, parts, judge_file(tmp_path, server, api_key_env="SHARD_KEY"))
    monkeypatch.delenv("SHARD_KEY")
    server.rule = lambda *_: "status 500"
    before = len(server.bodies)
    with demur.merge(parts, tmp_path / "all") as whole:
        assert whole.unjudged() == []
        assert len(whole.cells()) == 2 * len(Store.open(parts[0]).cells())
    assert len(server.bodies) == before


def test_a_shard_that_is_not_judged_needs_nothing_of_a_judge(path, parts, server, tmp_path, monkeypatch):
    monkeypatch.delenv("SHARD_KEY", raising=False)
    study = asking(path, ["prefix", judge_file(tmp_path, server, api_key_env="SHARD_KEY")])
    demur.run(study, parts[0], shard=f"1/{N}").close()
    with pytest.raises(InputError, match="SHARD_KEY"):
        demur.run(study, parts[0], shard=f"1/{N}", judge_shard=True)
    with pytest.raises(InputError, match="--judge-shard is for the parts that --shard makes"):
        demur.run(study, tmp_path / "whole", judge_shard=True)
    assert not (tmp_path / "whole").exists()
    assert server.bodies == []


def test_a_judge_of_one_shard_becomes_a_judge_of_the_whole_run(path, parts, server, tmp_path):
    judged(path, parts, judge_file(tmp_path, server), numbers=(3,))
    before = len(server.bodies)
    with demur.merge(parts, tmp_path / "all") as whole:
        assert whole.judges() == ["prefix", "asked"]
        assert whole.unjudged() == []
        assert whole.completions()["asked_label"].notna().all()
    assert len(server.bodies) > before


def test_verdicts_of_another_version_are_not_mixed(path, parts, server, tmp_path):
    judged(path, parts, judge_file(tmp_path, server), numbers=(1, 2))
    judged(path, parts, judge_file(tmp_path, server, temperature=0.5), numbers=(3,))
    before, told = len(server.bodies), []
    demur.merge(parts, tmp_path / "all", tell=told.append).close()
    assert [said for said in told if "another version of the judge" in said and str(parts[2]) in said] == told
    asked = server.bodies[before:]
    assert asked
    assert {body["temperature"] for body in asked} == {0}
    assert len(asked) <= len(Store.open(parts[2]).completions())


def test_a_judge_that_was_added_to_a_shard_is_kept(parts, server, tmp_path):
    run = CliRunner().invoke
    result = run(app, ["report", str(parts[1]), "--judge", "substring", "--no-figures", "--quiet"])
    assert result.exit_code == 0, result.output
    with demur.merge(parts, tmp_path / "all") as whole:
        assert whole.judges() == ["prefix", "substring"]
        assert whole.unjudged() == []


def test_what_a_judge_leaves_out_in_a_shard_is_an_error_there_and_asked_in_the_merge(path, parts, server, tmp_path):
    server.rule = lambda number, _: "status 400" if number % 3 == 1 else "answer"
    judge = judge_file(tmp_path, server, input_price=10.0, output_price=100.0)
    command = ["run", str(path), "--out", str(parts[0]), "--shard", f"1/{N}", "--judge-shard", "--quiet"]
    settings = ["--set", f"judges={json.dumps([judge])}", "--set", 'measurements=["loss"]']
    run = CliRunner().invoke
    result = run(app, [*command, *settings])
    assert result.exit_code == 1
    assert f"the shard 1/{N} is finished in" in result.output
    assert "The judge asked failed on" in result.output
    failed = len(Store.open(parts[0]).failures())
    assert failed
    server.rule = lambda *_: "answer"
    result = run(app, ["merge", *map(str, parts), "--out", str(tmp_path / "all"), "--quiet", "--max-cost", "0.0001"])
    assert result.exit_code == 1
    assert "the limit max_cost = 0.0001 is reached" in result.output
    result = run(app, ["merge", *map(str, parts), "--out", str(tmp_path / "all"), "--quiet"])
    assert result.exit_code == 0, result.output
    assert Store.open(tmp_path / "all").failures() == []
