"""Silences progress bars and advice of other packages while demur reads weights. demur shows its own progress."""

import logging as standard_logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_restoring: list[Callable[[], None]] = []
_inside = 0


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside, other packages show only errors. Their earlier settings are restored at the end.

    Several threads may be inside at once. The last one that leaves restores the settings that the first one found.
    """
    global _inside  # logging is one for the whole process, so this is, too
    with _lock:
        if not _inside:
            _restoring.append(_silence())
        _inside += 1
    try:
        with warnings.catch_warnings():
            # peft uses a name that transformers is about to rename. A user of demur can do nothing about it.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            # demur refuses such an adapter itself, and names what is missing.
            warnings.filterwarnings("ignore", message=".*missing adapter keys.*")
            yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _restoring.pop()()


def _silence() -> Callable[[], None]:
    """Silence the other packages; returns what restores their settings."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    # When bitsandbytes is imported, it recommends kernels for matrix products that demur switches off.
    others = {name: standard_logging.getLogger(name) for name in ("accelerate", "bitsandbytes")}
    levels = {name: logger.level for name, logger in others.items()}
    logging.set_verbosity_error()
    for logger in others.values():
        logger.setLevel(standard_logging.ERROR)
    logging.disable_progress_bar()

    def restore() -> None:
        logging.set_verbosity(verbosity)
        for name, logger in others.items():
            logger.setLevel(levels[name])
        if bars:
            logging.enable_progress_bar()

    return restore
