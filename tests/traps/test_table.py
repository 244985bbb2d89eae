"""The page of traps and the tests of traps name the same things."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "traps.md").read_text(encoding="utf-8")
FILES = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
DEFINED = {name for text in FILES for name in re.findall(r"def (test_\w+)\(", text)}
WITHOUT = {27, 29}
"""A speed that is measured, and a setting of the tests themselves."""


def rows():
    return {int(number): row for number, row in re.findall(r"^\| (\d+) \|(.*)$", PAGE, flags=re.MULTILINE)}


def test_every_trap_has_a_row_and_a_test_or_a_reason_why_not():
    assert sorted(rows()) == list(range(1, 33))
    for number, row in rows().items():
        named = re.findall(r"`(test_\w+)`", row)
        assert bool(named) == (number not in WITHOUT), number
        assert set(named) <= DEFINED, number
        assert not named or any(name.startswith(f"test_trap_{number:02d}_") for name in named), number
        assert named or "None: " in row


def test_every_test_of_a_trap_is_on_the_page():
    tests = {name for name in DEFINED if re.match(r"test_trap_\d", name)}
    assert all(re.match(r"test_trap_\d\d_", name) for name in tests)
    assert tests == {name for name in re.findall(r"`(test_\w+)`", PAGE) if re.match(r"test_trap_\d", name)}
