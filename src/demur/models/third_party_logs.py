"""transformers without its own progress bars and advice, while demur reads or converts weights: demur shows its own."""

import logging as standard_logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Errors still show; the settings are as before on leaving."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    # bitsandbytes tells, where it is imported, of kernels that it could fetch for products that demur does not let it make.
    others = {name: standard_logging.getLogger(name) for name in ("accelerate", "bitsandbytes")}
    levels = {name: logger.level for name, logger in others.items()}
    logging.set_verbosity_error()
    for logger in others.values():
        logger.setLevel(standard_logging.ERROR)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft asks transformers for a name that transformers is about to rename: nothing that a user of demur can act on.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            # What an adapter lacks is refused by name.
            warnings.filterwarnings("ignore", message=".*missing adapter keys.*")
            yield
    finally:
        logging.set_verbosity(verbosity)
        for name, logger in others.items():
            logger.setLevel(levels[name])
        if bars:
            logging.enable_progress_bar()
