"""Silences progress bars and advice of other packages while demur reads weights. demur shows its own progress."""

import logging as standard_logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside, other packages show only errors. Their earlier settings are restored at the end."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    # When bitsandbytes is imported, it recommends kernels for matrix products that demur switches off.
    others = {name: standard_logging.getLogger(name) for name in ("accelerate", "bitsandbytes")}
    levels = {name: logger.level for name, logger in others.items()}
    logging.set_verbosity_error()
    for logger in others.values():
        logger.setLevel(standard_logging.ERROR)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft uses a name that transformers is about to rename. A user of demur can do nothing about it.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            # demur refuses such an adapter itself, and names what is missing.
            warnings.filterwarnings("ignore", message=".*missing adapter keys.*")
            yield
    finally:
        logging.set_verbosity(verbosity)
        for name, logger in others.items():
            logger.setLevel(levels[name])
        if bars:
            logging.enable_progress_bar()
