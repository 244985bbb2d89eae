"""The house stays a house: few rooms, files and functions of a readable size, one meaning for each file name, typed values."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import demur

SOURCE = Path(demur.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
MOST_ROOMS, MOST_FILES, MOST_LINES, MOST_FUNCTION_LINES, MOST_UNTYPED = 13, 20, 350, 60, 19


def test_rooms_are_few_and_none_is_crowded():
    rooms = {path.parent for path in FILES} - {SOURCE}
    assert sum(room.parent == SOURCE for room in rooms) <= MOST_ROOMS
    crowded = {str(room.relative_to(SOURCE)): len(list(room.glob("*.py"))) for room in rooms}
    assert {name: count for name, count in crowded.items() if count > MOST_FILES} == {}


def test_no_two_modules_have_the_same_name():
    names = Counter(path.name for path in FILES if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_package_files_are_empty_but_for_the_front_door():
    filled = [path for path in FILES if path.name == "__init__.py" and path.read_text(encoding="utf-8").strip()]
    assert filled == [SOURCE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_have_a_readable_size(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno + 1 > MOST_FUNCTION_LINES
    ]
    assert long == []


def test_values_between_rooms_are_typed():
    untyped = {
        str(path.relative_to(SOURCE)): count
        for path in FILES
        if (count := len(re.findall(r"(?:dict|Mapping)\[str, Any\]", path.read_text(encoding="utf-8"))))
    }
    assert sum(untyped.values()) <= MOST_UNTYPED, untyped


def test_nothing_frozen_is_mutated():
    assert [str(path) for path in FILES if "object.__setattr__" in path.read_text(encoding="utf-8")] == []


def imports() -> dict[str, set[str]]:
    """The modules of demur that each of them names in an import: inside functions and for types too."""
    names = {
        ".".join(("demur", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path for path in FILES
    }
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        used = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                used |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        found[name] = (used & set(names)) - {name}
    return found


def test_no_modules_import_each_other_in_a_circle():
    found = imports()
    del found["demur"]  # the front door names every room
    # A module that imports nothing that is left, or that nothing left imports, is in no circle. Taken away one by one, only
    # circles remain.
    while ready := [name for name in found if not found[name] & set(found) or not any(name in found[other] for other in found)]:
        del found[ready[0]]
    assert sorted(found) == []


def test_loading_a_study_imports_nothing_heavy():
    heavy = ("torch", "transformers", "pandas", "matplotlib", "scipy", "plotly")
    code = f"import sys, demur; demur.load_study('demo'); print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
