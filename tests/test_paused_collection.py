"""Pausing the collection of cycles ends with the block, also after an error, and never switches on what was off."""

import gc

import pytest

from demur.report.large_runs.paused_collection import collection_paused


def test_it_is_paused_inside_and_goes_on_after_an_error():
    with pytest.raises(ZeroDivisionError), collection_paused():
        assert not gc.isenabled()
        1 / 0  # noqa: B018
    assert gc.isenabled()


def test_what_was_off_stays_off():
    gc.disable()
    try:
        with collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
