"""Plans for devices that are not here, and for several workers: every task once, in its order, and no load that does not pay."""

import pytest
import torch
from typer.testing import CliRunner

import demur
from demur.cli.main import app
from demur.core.errors import InputError, WorkError
from demur.study import cost
from demur.study.load_order import order_jobs
from demur.study.machines.data_sheets import DATA_SHEETS
from demur.study.machines.planned_machine import machine_of
from demur.study.machines.worker_spread import TimedTask, Weights, spread
from demur.study.plan import make_plan
from demur.study.plan_outlook import look_ahead
from demur.study.planned_tasks import planned_tasks
from demur.study.study_files import load_study
from tests.tiny_study import make_study


def lineage(count, *, extract=1.0, generate=10.0, parts=1):
    """Every checkpoint's directions are used in every checkpoint, as in a study."""
    names = [f"c{number}" for number in range(count)]
    own = {name: (f"direction of {name}",) for name in names}
    tasks = [TimedTask(f"extract {name}", (name,), (), own[name], extract) for name in names]
    needs = tuple(key for keys in own.values() for key in keys)
    for name in names:
        tasks += [TimedTask(f"generate {name}", (name,), needs, (f"{name}.{k}",), generate / parts, 1) for k in range(parts)]
    return tasks, {name: Weights(100, 2.0) for name in names}


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("memory", [100, 250, 10_000])
def test_every_task_is_done_once_after_its_inputs_and_with_its_weights(workers, memory):
    tasks, weights = lineage(4, parts=workers)
    found = spread(tasks, workers, weights, memory)
    done = [task for worker in found.workers for task in worker.tasks]
    assert sorted(map(str, done)) == sorted(map(str, tasks))
    for worker in found.workers:
        assert {name for task in worker.tasks for name in task.weights} == set(worker.loads)
        assert worker.bytes <= max(memory, 100)
        spent = sum(task.seconds for task in worker.tasks) + 2.0 * len(worker.loads)
        assert worker.busy == pytest.approx(spent)
        assert worker.busy <= found.seconds + 1e-9
    assert found.idle == pytest.approx(1 - sum(worker.busy for worker in found.workers) / (workers * found.seconds))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("together", [False, True])
def test_one_worker_loads_as_often_as_a_run_does(count, together):
    tasks, weights = lineage(count)
    steps = order_jobs(tasks, (), together=together)
    found = spread(tasks, 1, weights, 100 * count if together else 100)
    assert found.loads == sum(step.action == "load" for step in steps)
    assert found.idle == pytest.approx(0)
    assert found.seconds == pytest.approx(count * 11.0 + 2.0 * found.loads)


def test_workers_share_a_checkpoint_only_where_loading_it_again_saves_time():
    tasks, weights = lineage(1, generate=100.0, parts=4)
    found = spread(tasks, 4, weights, 100)
    # 2 s to load and 1 s to extract; the other three load meanwhile or after that, and each does one part of 25 s.
    assert found.loads == 4
    assert found.seconds == pytest.approx(2 + 1 + 2 + 25)
    tasks, weights = lineage(1, generate=2.0, parts=4)
    assert spread(tasks, 4, weights, 100).loads == 1


def test_workers_wait_for_directions_of_other_workers():
    tasks, weights = lineage(2)
    slow = [task if task.key != "extract c1" else TimedTask(task.key, task.weights, (), task.gives, 50.0) for task in tasks]
    found = spread(slow, 2, weights, 100)
    assert found.seconds == pytest.approx(2 + 50 + 10)
    assert sorted(worker.loads for worker in found.workers) == [("c0",), ("c1",)]
    assert found.idle == pytest.approx(1 - (13 + 62) / (2 * 62))


def test_both_checkpoints_of_a_pair_are_held_at_once():
    tasks, weights = lineage(2)
    pair = TimedTask("compare c0 with c1", ("c0", "c1"), ("direction of c0", "direction of c1"), (), 1.0)
    found = spread([*tasks, pair], 1, weights, 100)
    assert max(worker.bytes for worker in found.workers) == 200
    found = spread([*tasks, pair], 2, weights, 200)
    assert sum(task.key.startswith("compare") for worker in found.workers for task in worker.tasks) == 1


def test_a_task_whose_input_nobody_makes_is_an_error():
    with pytest.raises(WorkError, match="'generate c0' needs direction of c9, which no task makes"):
        spread([TimedTask("generate c0", ("c0",), ("direction of c9",), (), 1.0)], 2, {"c0": Weights(1, 1.0)}, 10)


def test_a_plan_spreads_every_cell_once_and_is_faster_with_more_workers(tmp_path):
    study = load_study(make_study(tmp_path))
    alone = look_ahead(study, "l4")
    one, four = (look_ahead(study, "l4", workers).workers for workers in (1, 4))
    assert (one.low, one.high) == pytest.approx((alone.time.low, alone.time.high))
    assert one.spread.loads == alone.loads
    for outlook in (one, four):
        keys = [task.key for worker in outlook.spread.workers for task in worker.tasks]
        assert set(keys) == {task.key for task in planned_tasks(alone.plan)}
        cells = sum(task.cells for worker in outlook.spread.workers for task in worker.tasks)
        assert cells == len(alone.plan.cells)
    assert four.low < one.low
    assert four.high < one.high


def test_a_selection_comes_before_everything_else_and_is_counted(tmp_path):
    study = load_study(make_study(tmp_path), ['direction.layers="select"'])
    found = look_ahead(study, "h100", 2)
    first = [worker.tasks[0].key for worker in found.workers.spread.workers if worker.tasks]
    assert "select in base" in first
    assert look_ahead(study, "h100", 1).workers.high < look_ahead(study, "h100").time.high + 2 * cost.LOAD_SECONDS


def test_the_figures_of_a_data_sheet_are_used_in_the_study_s_precision(tmp_path):
    study = make_study(tmp_path)
    sheet = DATA_SHEETS["h100"]
    assert (sheet.memory, sheet.operations("float32"), sheet.operations("bfloat16")) == (80 * 10**9, 67e12, 989e12)
    rates = sheet.rates("float16")
    assert (rates.operations, rates.bytes) == (989e12, 3.35e12)
    found = look_ahead(load_study(study, ["dtype='bfloat16'"]), "H100")
    assert (found.device, found.memory.free, found.memory.prepacked) == (sheet, sheet.memory, 0)
    assert (found.time.operations, found.time.measured) == (989e12, False)


def test_the_time_follows_the_bandwidth_where_reading_weights_takes_the_longest():
    study = load_study("gemma-2-9b", ["batch_tokens=64"])  # one row a batch
    slow, fast = (look_ahead(study, name).time for name in ("l4", "a10"))
    read = make_plan(study).rows() * study.max_new_tokens * 2 * 9.24e9
    assert slow.high - fast.high == pytest.approx(cost.SLOWER_ON_GPU[1] * read * (1 / 300e9 - 1 / 600e9), rel=1e-3)


def test_what_is_printed_says_whose_figures_they_are_and_what_does_not_fit():
    result = CliRunner().invoke(app, ["plan", "gemma-2-9b", "--device", "l4", "--workers", "300", "--set", "dtype='float32'"])
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 80
    said = " ".join(result.output.split())
    for words in (
        "of the 22.4 GiB of one NVIDIA L4",
        "base does not fit: its weights alone take 34.4 GiB",
        "estimated from peaks of the NVIDIA L4 data sheet: 30 TFLOP/s in float32, 300 GB/s",
        "demur was not measured on a GPU, so this is an order of magnitude",
        "workers 300, each with a device of its own: about",
        "% of the workers' time idle",
        "loads base; extract base",
        "would have no work",
    ):
        assert words in said, words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "h10"], "did you mean 'h100'?"),
        (["--device", "mps"], "is not a device of a machine, nor one with a data sheet here"),
        (["--workers", "0"], "cannot be planned for 0 workers"),
        (["--workers", "1001"], "give a number from 1 to 1000"),
    ],
)
def test_unknown_devices_and_numbers_are_refused(arguments, words):
    result = CliRunner().invoke(app, ["plan", "demo", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_devices_of_this_machine_keep_their_meaning():
    assert machine_of("cpu").sheet is None
    assert machine_of("spread").used == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no usable GPU"):
            machine_of("cuda:1")


def test_python_plans_for_other_devices_too(tmp_path):
    outlook = demur.plan(make_study(tmp_path), device="h100", workers=3)
    assert "workers  3, each with a device of its own" in str(outlook)
    assert len(outlook.workers.bytes) == 3
