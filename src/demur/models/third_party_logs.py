"""Loading by other packages: one thread at a time and in silence. demur shows its own progress."""

import logging as standard_logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock

_loading = RLock()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside, other packages show only errors. Their earlier settings are restored at the end.

    One thread is inside at a time, and others wait. Not only messages are settings of the whole process: while transformers
    loads, its models do not tie weights and torch makes another dtype. Each load puts back what it found, so a second one in
    the middle of the first would leave both switched for good.
    """
    with _loading:
        restore = _silence()
        try:
            with warnings.catch_warnings():
                # peft uses a name that transformers is about to rename. A user of demur can do nothing about it.
                warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
                # demur refuses such an adapter itself, and names what is missing.
                warnings.filterwarnings("ignore", message=".*missing adapter keys.*")
                yield
        finally:
            restore()


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
