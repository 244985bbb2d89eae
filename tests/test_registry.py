"""The registry of parts: what demur ships, entry points, names of modules, and what is registered in a program."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import ClassVar, get_args, get_origin, get_type_hints

import pytest

import demur
from demur.core import registry as registries
from demur.core.errors import InputError
from demur.core.part_kinds import KINDS, PartKind
from demur.core.registry import Registry, registry

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
        assert registry(kind).get(name) is not None
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
    assert len(MADE) == 1


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
from demur.core.part_kinds import KINDS
from demur.core.registry import registry
demur.register("instructions", "far", "wsgiref.validate:validator")
names = [name for kind in KINDS for name in registry(kind).names()]
loaded = [name for name in sys.modules if name.startswith("demur.") and not name.startswith("demur.core")]
print("far" in names, loaded, "wsgiref.validate" in sys.modules)
registry("instructions").get("far")
print("wsgiref.validate" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True [] False", "True"]


class Failing:
    def __init__(self):
        raise OSError("no such\nfile")


class Wants:
    def __init__(self, argument):
        raise AssertionError


def test_a_part_that_cannot_be_made(parts):
    parts.register("failing", Failing)
    with pytest.raises(InputError, match="^the kind of test part 'failing' cannot be made: no such file$"):
        parts.get("failing")
    with pytest.raises(InputError, match=f"'{__name__}:Wants' cannot be made: .*missing 1 required positional argument"):
        parts.get(f"{__name__}:Wants")


def test_two_names_of_one_target_are_one_part(parts):
    parts.register("own", f"{__name__}:Part")
    assert parts.get("own") is parts.get("shipped") is parts.get(f"{__name__}:Part")


class Speaks:
    name, word = "speaks", "loud"

    def speak(self): ...


def speaking():
    kind = PartKind(
        "demur.tests", "kind of test part", {}, protocol="tests.Speaks", members=("name", "word", "speak"),
        choices={"word": ("loud", "hush")},
    )  # fmt: skip
    return Registry(kind)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (type("Silent", (), {"name": "x"})(), "'own' has no word, speak; give it what tests.Speaks asks for"),
        (type("Odd", (Speaks,), {"word": "odd"})(), "'own' says 'odd' for 'word'; expected one of loud, hush"),
        (type("List", (Speaks,), {"word": ["loud"]})(), "expected one of loud, hush"),
        (type("Named", (Speaks,), {"name": "a/b"})(), "'own' has the name 'a/b'; expected letters, digits, - and _"),
        (type("Nameless", (Speaks,), {"name": None})(), "'own' has the name None"),
    ],
)
def test_a_part_is_checked_when_it_is_made(part, message):
    parts = speaking()
    parts.register("own", part)
    with pytest.raises(InputError, match=message):
        parts.get("own")
    parts.register("own", Speaks)
    assert parts.get("own").word == "loud"


@pytest.mark.parametrize("kind", [kind for kind, facts in KINDS.items() if facts.protocol])
def test_the_members_listed_for_a_kind_are_those_of_its_protocol(kind):
    module, _, name = KINDS[kind].protocol.rpartition(".")
    protocol = getattr(import_module(module), name)
    methods = [member for member, value in vars(protocol).items() if callable(value) and not member.startswith("_")]
    assert set(KINDS[kind].members) == {*protocol.__annotations__, *methods}
    hints = get_type_hints(protocol, vars(import_module("typing")))
    for member, allowed in KINDS[kind].choices.items():
        hint = hints[member]
        assert get_args(get_args(hint)[0] if get_origin(hint) is ClassVar else hint) == allowed


@pytest.mark.parametrize("kind", KINDS)
def test_every_shipped_part_is_complete(kind):
    for name in KINDS[kind].shipped:
        registry(kind).get(name)
