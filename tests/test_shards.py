"""Shards: every part of a study in a folder of its own, joined to what one run would have made; and what is not joined."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError
from demur.runs.database.network_folder import network_file_system
from demur.runs.describe import describe
from demur.runs.executors.in_process import InProcess
from demur.runs.jobs import pending_jobs, stored_keys
from demur.runs.sharding.shard import Shard, shard_work
from demur.runs.sharding.shard_jobs import shard_jobs
from demur.runs.store import Store
from demur.study.plan import make_plan
from demur.study.planned.pairings import pairings
from demur.study.preflight import check
from tests.tiny_study import contents, make_study

MEASURED = ['measurements=["by-layer", "loss", "direction-agreement", "refusal-probability"]', "controls.halves=2"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def study(path):
    """Two checkpoints; measurements of arms, cells and pairs; null directions that need activations."""
    return demur.load_study(path, MEASURED)


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    demur.run(study, folder).close()
    return contents(folder)


@pytest.fixture(scope="module")
def parts(study, tmp_path_factory):
    """The folders of three shards."""
    folder = tmp_path_factory.mktemp("parts")
    for number in (1, 2, 3):
        demur.run(study, folder / str(number), shard=f"{number}/3").close()
    return [folder / str(number) for number in (1, 2, 3)]


def assert_same(found, whole):
    """Every row is the same. What was measured of several cells at once may differ by rounding: a shard has fewer of them."""
    rounded = {**whole["summary"], "measurements": None}
    assert {**found, "summary": {**found["summary"], "measurements": None}} == {**whole, "summary": rounded}
    assert close(found["summary"]["measurements"], whole["summary"]["measurements"])


def close(one, other):
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    return one == pytest.approx(other, rel=1e-4) if isinstance(one, float) else one == other


def test_three_shards_merged_equal_the_whole_run(study, whole, parts, tmp_path):
    stores = [Store.open(part) for part in parts]
    counts = [sum(store.progress().values()) for store in stores]
    for store in stores:
        assert store.verdicts() == []
        store.close()
    n = len(whole["completions"])
    # No shard has done the work of another, but for the baselines that its measurements need.
    assert all(n / 3 - 6 <= count <= n / 3 + 12 for count in counts), counts
    made = demur.merge(reversed(parts), tmp_path / "all")
    assert made.summary()["created"] == min(demur.open_run(part).manifest().created for part in parts)
    made.close()
    assert_same(contents(tmp_path / "all"), whole)
    assert (tmp_path / "all" / "report.html").is_file()
    # The same again changes nothing, and the run is a run as any other: a command resumes it and finds nothing to do.
    demur.merge(parts, tmp_path / "all").close()
    assert_same(contents(tmp_path / "all"), whole)
    demur.run(study, tmp_path / "all", executor=InProcess()).close()
    assert_same(contents(tmp_path / "all"), whole)


class Stopped:
    name = "stopped"

    def __init__(self, after):
        self.after = after

    def run(self, jobs, inputs):
        for number, record in enumerate(InProcess().run(jobs, inputs)):
            if number == self.after:
                raise KeyboardInterrupt
            yield record


@pytest.mark.soak
def test_the_same_command_finishes_a_shard_that_was_stopped(study, whole, parts, tmp_path):
    part = tmp_path / "2"
    with pytest.raises(KeyboardInterrupt):
        demur.run(study, part, shard="2/3", executor=Stopped(4))
    with pytest.raises(InputError, match=r"the shard 2/3 in .* is not finished; run its command again, then merge"):
        demur.merge([parts[0], part, parts[2]], tmp_path / "all")
    assert not (tmp_path / "all").exists()
    demur.run(study, part, shard="2/3").close()
    demur.merge([parts[0], part, parts[2]], tmp_path / "all").close()
    assert_same(contents(tmp_path / "all"), whole)


@pytest.mark.parametrize("of", [1, 2, 5, 20])
def test_every_cell_arm_and_pair_belongs_to_one_shard_and_every_job_gets_its_inputs(study, tmp_path, of):
    ready = check(make_plan(study))
    works = [shard_work(ready, Shard(number, of)) for number in range(1, of + 1)]
    cells = [key for work in works for key in work.cells]
    assert sorted(cells) == sorted(cell.key for cell in (*ready.plan.cells, *ready.plan.null_cells))
    assert sorted(arm for work in works for arm in work.arms) == sorted(arm.name for arm in ready.plan.arms)
    assert sorted(pair for work in works for pair in work.pairs) == sorted(pair.subject for pair in pairings(ready.plan))
    store = Store.create(tmp_path / "run", study.digest, study.toml())
    jobs = pending_jobs(ready, store)
    for work in works:
        mine = shard_jobs(jobs, ready.plan, work)
        there = stored_keys(ready, store) | {key for job in mine for key in job.gives}
        assert {key for job in mine for key in job.needs} <= there
    store.close()


def changed(part, folder, change):
    """A copy of a shard in which one entry is another."""
    shutil.copytree(part, folder)
    store = Store.open(folder)
    entries = store.entries()
    change(entries)
    store.remember_all(entries)
    store.close()
    return folder


def test_what_is_no_part_of_the_same_run_is_not_joined(parts, tmp_path):
    one, two, three = parts

    def shorter(entries):
        entries["study"] = "another digest"
        entries["deciding"]["max_new_tokens"] = 2

    other = changed(three, tmp_path / "other", shorter)
    half = changed(three, tmp_path / "half", lambda entries: entries["shard"].update(number=2, of=2))
    whole = changed(three, tmp_path / "whole", lambda entries: entries.update(shard=None))
    cases = [
        ([one, two], tmp_path / "all", "of 3 shards, 3 is missing; give the folders of all shards"),
        ([three], tmp_path / "all", "of 3 shards, 1, 2 are missing"),
        ([one, two, two, three], tmp_path / "all", "both hold the shard 2/3; give each shard once"),
        ([one, two, other], tmp_path / "all", r"holds another study than .* \(max_new_tokens differs\)"),
        ([one, half], tmp_path / "all", "and .* the shard 2/2; N must be the same"),
        ([one, whole], tmp_path / "all", "holds a whole run; merge takes the folders of demur run STUDY --shard I/N"),
        ([one, two, three], two, "holds a shard; give another --out for the whole run"),
        ([], tmp_path / "all", "there is nothing to merge"),
    ]
    for folders, out, words in cases:
        with pytest.raises(InputError, match=words):
            demur.merge(folders, out)
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entries: entries["checkpoints"]["base"].update(fingerprint="0-0"), "the weights of 'base' are not the same in"),
        (lambda entries: entries["checkpoints"]["base"].update(settings="0"), "the settings of 'base' are not the same in"),
        (lambda entries: entries["arms"][0].update(template="{instruction}"), "the prompts of .* are not the same in"),
        (lambda entries: entries["instructions"]["harmful"].update(sha256="0"), "was made with other harmful instructions than"),
        (lambda entries: entries["sessions"][0]["versions"].update(torch="0.1"), "was made with torch 0.1 and .* add --mixed to"),
        (lambda entries: entries["sessions"][0].update(device="cuda:0"), "was made with device cuda and .* with device cpu"),
    ],
)
def test_shards_of_other_weights_prompts_or_versions_are_refused(parts, tmp_path, change, words):
    other = changed(parts[2], tmp_path / "3", change)
    with pytest.raises(InputError, match=words):
        demur.merge([*parts[:2], other], tmp_path / "all")
    if "--mixed" in words:
        demur.merge([*parts[:2], other], tmp_path / "all", mixed=True).close()
        assert "0.1" in json.dumps(demur.open_run(tmp_path / "all").summary()["sessions"])


def test_a_folder_holds_one_shard_or_a_whole_run(path, study, parts, tmp_path):
    with pytest.raises(InputError, match=r"holds the shard 1/3 of this study, and the shard 2/3 was asked for; add --shard 1/3"):
        demur.run(study, parts[0], shard="2/3")
    with pytest.raises(InputError, match=r"holds the shard 1/3 of this study, and the whole study was asked for"):
        demur.run(study, parts[0])
    ready = check(make_plan(study))
    store = Store.create(tmp_path / "run", study.digest, study.toml())
    describe(ready, store)
    store.close()
    with pytest.raises(InputError, match=r"holds a whole run of this study, and the shard 1/3 was asked for"):
        demur.run(study, tmp_path / "run", shard="1/3")
    for text in ("0/3", "4/3", "3", "a/b", "1/0"):
        with pytest.raises(InputError, match=f"{text!r} is no shard; give I/N with I from 1 to N"):
            demur.run(study, tmp_path / "new", shard=text)
    with pytest.raises(InputError, match="cannot be divided into 999 shards; ask for fewer"):
        demur.run(study, tmp_path / "new", shard="1/999")
    with pytest.raises(InputError, match='direction.layers is "select", and every shard would select anew'):
        demur.run(demur.load_study(path, ['direction.layers="select"']), tmp_path / "new", shard="1/2")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/data/runs/a", "nfs4"), ("/data/scratch/a", None), ("/home/a", None), ("/data2/a", None), ("/with space/a", "fuse.sshfs")],
)
def test_a_network_file_system_is_told_from_a_local_disk(tmp_path, folder, kind):
    table = """
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:50 / /data rw,relatime shared:1 - nfs4 server:/data rw
31 30 8:2 / /data/scratch rw - xfs /dev/sdb1 rw
32 22 0:51 / /with\\040space rw - fuse.sshfs host: rw
"""
    (tmp_path / "mounts").write_text(table)
    assert network_file_system(Path(folder), tmp_path / "mounts") == kind
    assert network_file_system(Path(folder), tmp_path / "nothing") is None


def test_the_command_line_makes_shards_and_joins_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = make_study(tmp_path / "files")
    run = CliRunner().invoke
    for number in (1, 2):
        result = run(app, ["run", str(path), "--shard", f"{number}/2", "--quiet"])
        assert result.exit_code == 0, result.output
        assert (
            result.output
            == f"the shard {number}/2 is finished in runs/tiny-{number}-of-2; demur merge joins it with the others\n"
        )
    result = run(app, ["merge", "runs/tiny-1-of-2", "runs/tiny-2-of-2", "--out", "runs/tiny", "--quiet"])
    assert result.exit_code == 0, result.output
    assert result.output.rstrip().endswith("runs/tiny/report.html")
    result = run(app, ["merge", "runs/tiny-1-of-2", "--out", "runs/other"])
    assert result.exit_code == 2
    assert result.output == "demur: of 2 shards, 2 is missing; give the folders of all shards\n"
