"""The registry of parts: what demur ships, entry points, names of modules, and what is registered in a program."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import ClassVar, Protocol

import pytest

import demur
from demur.core import registry as registries
from demur.core.errors import InputError
from demur.core.registry import KINDS, PartKind, Registry, check_members, registry

MADE = []


class Part:
    """Counts how often it is made."""

    def __init__(self):
        MADE.append(self)


PARTS = {"nested": Part}


class Holder:
    inner = Part


@pytest.fixture
def parts(monkeypatch):
    """A registry of its own, with one shipped part and one of another package."""
    MADE.clear()
    kind = PartKind("demur.tests", "kind of test part", {"shipped": f"{__name__}:Part"})
    points = {"demur.tests": (EntryPoint("announced", f"{__name__}:Holder.inner", "demur.tests"),)}
    monkeypatch.setattr(registries, "entry_points", lambda group: points.get(group, ()))
    registries._points.cache_clear()
    yield Registry(kind)
    registries._points.cache_clear()


@pytest.mark.parametrize("kind", ["edit", "estimator", "control", "judge", "prompt", "instructions"])
def test_every_shipped_part_can_be_had(kind):
    assert registry(kind).names()
    for name in KINDS[kind].shipped:
        registry(kind).get(name)
    assert set(KINDS[kind].shipped) <= set(registry(kind).names())


def test_names_come_from_demur_from_packages_and_from_the_program(parts):
    parts.register("own", Part)
    assert parts.names() == ("shipped", "announced", "own")
    assert "announced" in parts
    assert "other" not in parts
    assert MADE == []
    assert all(isinstance(parts.get(name), Part) for name in parts.names())


def test_a_class_is_made_once(parts):
    assert parts.get("shipped") is parts.get("shipped")
    assert parts.get(f"{__name__}:Part") is parts.get(f"{__name__}:Part")
    assert len(MADE) == 2


def test_an_object_and_a_function_are_taken_as_they_are(parts):
    part = Part()
    parts.register("object", part)
    parts.register("function", len)
    assert parts.get("object") is part
    assert parts.get("function") is len


def test_a_name_is_registered_again_and_removed(parts):
    first, second = Part(), Part()
    parts.register("own", first)
    assert parts.get("own") is first
    parts.register("own", second)
    assert parts.get("own") is second
    parts.register("shipped", second)
    assert parts.get("shipped") is second
    for name in ("own", "shipped", "never-there"):
        parts.unregister(name)
    assert parts.names() == ("shipped", "announced")
    assert parts.get("shipped") is not second
    with pytest.raises(InputError, match="there is no kind of test part 'own'"):
        parts.get("own")


def test_errors_name_the_nearest_part(parts):
    with pytest.raises(InputError, match="there is no kind of test part 'shiped'; did you mean 'shipped'?"):
        parts.get("shiped")
    with pytest.raises(InputError, match="known: announced, shipped"):
        parts.get("zzzzzz")
    with pytest.raises(InputError, match="there is no kind of part 'juge'; did you mean 'judge'?"):
        registry("juge")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.at.all:Part", "'nowhere.at.all:Part' cannot be imported: No module named 'nowhere'"),
        (f"{__name__}:Nothing", "cannot be imported: module .* has no attribute 'Nothing'"),
    ],
)
def test_a_target_that_cannot_be_imported(parts, target, message):
    with pytest.raises(InputError, match=message):
        parts.get(target)
    parts.register("broken", target)
    with pytest.raises(InputError, match=message):
        parts.get("broken")


@pytest.mark.parametrize("target", ["no-colon", "module:", ":attribute"])
def test_a_text_that_names_no_module_is_refused_when_it_is_registered(parts, target):
    with pytest.raises(InputError, match="expected module:attribute"):
        parts.register("bad", target)
    assert "bad" not in parts


@pytest.mark.parametrize("name", ["", "  "])
def test_a_part_needs_a_name(parts, name):
    with pytest.raises(InputError, match="a kind of test part needs a name"):
        parts.register(name, Part)


def test_a_text_may_be_the_part_itself():
    demur.register("prompt", "loud", "HEAR: {instruction}")
    try:
        assert registry("prompt").get("loud") == "HEAR: {instruction}"
    finally:
        registry("prompt").unregister("loud")
    with pytest.raises(InputError, match="expected module:attribute"):
        demur.register("prompt", "loud", "HEAR")


def test_nothing_is_imported_before_a_part_is_used():
    code = """
import sys, demur
from demur.core.registry import KINDS, registry
demur.register("judge", "far", "wsgiref.validate:validator")
names = [name for kind in KINDS for name in registry(kind).names()]
loaded = [name for name in sys.modules if name.startswith("demur.") and not name.startswith("demur.core")]
print("far" in names, loaded, "wsgiref.validate" in sys.modules)
registry("judge").get("far")
print("wsgiref.validate" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True [] False", "True"]


class Speaks(Protocol):
    word: ClassVar[str]

    def speak(self) -> str: ...


def test_members_that_a_protocol_asks_for():
    class Silent:
        word = "hush"

    with pytest.raises(InputError, match=r"the judge 'silent' has no speak; give it what .*test_registry.Speaks asks for"):
        check_members(Silent(), "judge", "silent", Speaks)
    Silent.speak = lambda self: self.word
    check_members(Silent(), "judge", "silent", Speaks)
