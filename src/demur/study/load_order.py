"""The order in which checkpoints are loaded, read, used for generation and freed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One thing to do with one checkpoint.

    Attributes:
        action: `load`, `extract`, `generate` or `free`.
        checkpoint: the checkpoint's name in the study.
    """

    action: str
    checkpoint: str


def order_steps(extract: Sequence[str], generate: Sequence[str], sizes: Mapping[str, int | None], memory: int) -> list[Step]:
    """Loads, extractions, generations and frees in order. All directions are extracted before the first generation.

    Where all checkpoints fit into memory, each is loaded once. Where they do not, or a size is unknown, one is in memory at a
    time; the one that is extracted last is used for generation before it is freed, so that n checkpoints take 2 n - 1 loads.

    Args:
        extract: checkpoints whose directions are to be extracted, in order.
        generate: checkpoints that are to generate.
        sizes: bytes of the weights of each, None if not known.
        memory: bytes that weights may take together.

    Returns:
        The steps.
    """
    names = {*extract, *generate}
    known = [sizes[name] for name in names]
    together = all(size is not None for size in known) and sum(size or 0 for size in known) <= memory
    steps: list[Step] = []
    loaded: list[str] = []
    for name in extract:
        steps += [Step("load", name), Step("extract", name)]
        if name in generate and (together or name == extract[-1]):
            loaded.append(name)
        else:
            steps.append(Step("free", name))
    for name in sorted(generate, key=lambda name: (name not in loaded, -[*generate].index(name))):
        if name not in loaded:
            steps.append(Step("load", name))
        steps += [Step("generate", name), Step("free", name)]
    return steps


def loads(steps: Sequence[Step]) -> int:
    """How often weights are read."""
    return sum(step.action == "load" for step in steps)
