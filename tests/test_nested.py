"""Nested tables made flat: every value once, under the key that tells where it was."""

from demur.core.nested import flatten

TABLE = {"a": 1, "b": {"c": [1, 2], "d": {}}, "e": [{"f": None}, {"f": {"g": 2}}], "h": []}


def test_lists_are_values_unless_asked_for():
    assert flatten(TABLE) == {"a": 1, "b.c": [1, 2], "e": [{"f": None}, {"f": {"g": 2}}], "h": []}


def test_tables_in_lists_have_numbers_in_their_keys():
    assert flatten(TABLE, index=".{}") == {"a": 1, "b.c": [1, 2], "e.0.f": None, "e.1.f.g": 2, "h": []}
    assert list(flatten(TABLE, index="[{}]")) == ["a", "b.c", "e[0].f", "e[1].f.g", "h"]


def test_an_empty_table_is_kept_where_asked_for():
    assert flatten(TABLE, keep_empty=True)["b.d"] == {}
    assert "b.d" not in flatten(TABLE)
    assert flatten({}) == {}
