"""Shell completion of half-typed names: presets, formats, judges, sets, files and run folders.

These functions run at every press of the tab key, so they import nothing heavy and read only names. A name that is not offered
can still be valid.
"""

from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _entries(incomplete: str) -> Iterator[tuple[str, Path]]:
    """The entries of the folder that is being typed. Hidden entries are included only after a dot."""
    typed, slash, start = incomplete.rpartition("/")
    folder = Path(typed + slash or ".").expanduser()
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return
    for path in found:
        if path.name.startswith(start) and (start or not path.name.startswith(".")):
            yield typed + slash + path.name, path


def _files(incomplete: str, *endings: str) -> list[str]:
    """Files with one of these endings, and folders, which may contain such files."""
    return [
        f"{text}/" if path.is_dir() else text for text, path in _entries(incomplete) if path.is_dir() or path.suffix in endings
    ]


def studies(incomplete: str) -> list[str]:
    """Presets, and TOML files."""
    presets = sorted(item.name.removesuffix(".toml") for item in (files("demur.study") / "presets").iterdir())
    return _starting(presets, incomplete) + _files(incomplete, ".toml")


def runs(incomplete: str) -> list[str]:
    """Folders that hold a run; if there are none, all folders, which may contain one."""
    found = [(text, path) for text, path in _entries(incomplete) if path.is_dir()]
    nearby = [("runs/" + path.name, path) for _, path in _entries("runs/")] if not incomplete else []
    holding = [text for text, path in (*found, *nearby) if (path / "run.sqlite").is_file()]
    return holding or [f"{text}/" for text, _ in found]


def executors(incomplete: str) -> list[str]:
    """The executors of jobs."""
    from demur.runs.executors.chosen_executor import EXECUTORS

    return _starting(EXECUTORS, incomplete)


def models(incomplete: str) -> list[str]:
    """The demo checkpoint, folders, and GGUF files."""
    from demur.models.sources import DEMO_MODEL

    return _starting([DEMO_MODEL], incomplete) + _files(incomplete, ".gguf")


def adapters(incomplete: str) -> list[str]:
    """The demo adapter, and folders."""
    from demur.models.sources import DEMO_ADAPTER

    return _starting([DEMO_ADAPTER], incomplete) + _files(incomplete)


def prompts(incomplete: str) -> list[str]:
    """Names of prompt formats."""
    from demur.inputs.prompt_formats import prompt_names

    return _starting(prompt_names(), incomplete)


def instructions(incomplete: str) -> list[str]:
    """Registered sets, and files of instructions."""
    from demur.inputs.instruction_files import SUFFIXES
    from demur.inputs.instructions import registered

    return _starting(registered(), incomplete) + _files(incomplete, *SUFFIXES)


def judges(incomplete: str) -> list[str]:
    """Names of judges, and TOML files."""
    from demur.core.registry import registry

    return _starting(registry("judge").names(), incomplete) + (_files(incomplete, ".toml") if incomplete else [])


def directions(incomplete: str) -> list[str]:
    """Files of directions."""
    return _files(incomplete, ".safetensors", ".pt", ".gguf")


def completions(incomplete: str) -> list[str]:
    """Files of completions."""
    from demur.inputs.completions.completion_files import SUFFIXES

    return _files(incomplete, *SUFFIXES)


def direction_formats(incomplete: str) -> list[str]:
    """Formats of direction files."""
    from demur.directions.file_formats import FORMATS

    return _starting(FORMATS, incomplete)


def export_formats(incomplete: str) -> list[str]:
    """Formats of demur export."""
    from demur.core.registry import registry

    return _starting(registry("export").names(), incomplete)


def estimators(incomplete: str) -> list[str]:
    """Names of estimators."""
    from demur.core.registry import registry

    return _starting(registry("estimator").names(), incomplete)


def criteria(incomplete: str) -> list[str]:
    """Criteria of demur select."""
    from demur.measurements.selection.criteria import CRITERIA

    return _starting(CRITERIA, incomplete)


def devices(incomplete: str) -> list[str]:
    """Names of devices."""
    return _starting(("auto", "cpu", "cuda", "spread"), incomplete)


def planned_devices(incomplete: str) -> list[str]:
    """Names of devices, and of those that a study can be planned for without having one."""
    from demur.study.machines.data_sheets import DATA_SHEETS

    return _starting(("auto", "cpu", "cuda", "spread", *DATA_SHEETS), incomplete)


def dtypes(incomplete: str) -> list[str]:
    """Precisions of weights."""
    return _starting(("float32", "bfloat16", "float16"), incomplete)


def quantised(incomplete: str) -> list[str]:
    """Kinds of quantised weights."""
    return _starting(("8bit", "4bit"), incomplete)


def units(incomplete: str) -> list[str]:
    """Units of a coefficient."""
    return _starting(("unit", "raw", "residual"), incomplete)


def sites(incomplete: str) -> list[str]:
    """Names of sites; the last name of a list with commas is completed."""
    before, comma, start = incomplete.rpartition(",")
    return [before + comma + name for name in _starting(("resid_pre", "resid_mid", "resid_post"), start)]
