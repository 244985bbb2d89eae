"""Free memory is what is left to this process: of the machine, of its container, and of a scheduler's job."""

from types import SimpleNamespace

import psutil
import pytest
import torch

from demur.models import cgroups, memory_budget

GIB = 2**30


def write(root, folder, files):
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / folder / name).write_text(text)


@pytest.fixture
def machine(tmp_path):
    write(tmp_path, "proc/self", {"cgroup": "1:cpu:/\n4:memory:/slurm/job\n0::/\n"})
    return tmp_path


def test_the_tightest_of_all_groups_decides(machine):
    for path, limit in (("", 64), ("slurm", 40), ("slurm/job", 8)):
        write(
            machine,
            f"sys/fs/cgroup/memory/{path}",
            {
                "memory.limit_in_bytes": str(limit * GIB),
                "memory.usage_in_bytes": str(5 * GIB),
                "memory.stat": f"cache 1\ntotal_inactive_file {GIB}\n",
            },
        )
    assert cgroups.left(machine) == 4 * GIB
    (machine / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text(str(6 * GIB))
    assert cgroups.left(machine) == 2 * GIB
    (machine / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text(str(GIB))
    assert cgroups.left(machine) == 0


def test_the_second_version_and_a_path_that_is_the_hosts(machine):
    write(machine, "proc/self", {"cgroup": "0::/docker/abc\n"})
    files = {"memory.max": f"{16 * GIB}\n", "memory.current": f"{6 * GIB}\n", "memory.stat": f"anon 5\ninactive_file {2 * GIB}\n"}
    write(machine, "sys/fs/cgroup", files)
    assert cgroups.left(machine) == 12 * GIB
    write(machine, "sys/fs/cgroup", {"memory.max": "max\n"})
    assert cgroups.left(machine) is None


@pytest.mark.parametrize(
    "files", [{}, {"memory.limit_in_bytes": str(2**63 - 4096), "memory.usage_in_bytes": "1", "memory.stat": ""}]
)
def test_without_a_limit_there_is_nothing_to_say(machine, files):
    write(machine, "sys/fs/cgroup/memory", files)
    assert cgroups.left(machine) is None
    (machine / "proc/self/cgroup").unlink()
    assert cgroups.left(machine) is None


def test_main_memory_is_the_machines_or_less(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100))
    for left, expected in ((None, 100), (30, 30), (300, 100)):
        monkeypatch.setattr(cgroups, "left", lambda left=left: left)
        assert memory_budget.free("cpu") == expected


def test_what_torch_keeps_on_a_gpu_is_free(monkeypatch):
    for name, value in (("mem_get_info", (10, 80)), ("memory_reserved", 50), ("memory_allocated", 20)):
        monkeypatch.setattr(torch.cuda, name, lambda device=None, value=value: value)
    assert memory_budget.free("cuda:0") == 40
