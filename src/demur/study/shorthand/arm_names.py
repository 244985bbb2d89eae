"""Names of arms in a study: what `sources` and `targets` of an intervention may name, and which arms they mean.

An arm is called `checkpoint/prompt`. The name of a checkpoint means all of its arms. This works on names alone, so it serves
studies, plans and stored studies alike.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from demur.inputs.format_names import format_name
from demur.inputs.prompt_edits import is_edited

Arms = Mapping[str, Sequence[str]]
"""Checkpoint -> the short names of its prompt formats, in the order of the study."""


def prompt_name(spec: str, prompts: Collection[str]) -> str:
    """The short name of a checkpoint's prompt format: its own name if the study defines it, else the name of the format."""
    return spec if spec in prompts else format_name(spec)


def arms_by_checkpoint(formats: Mapping[str, Iterable[str]], prompts: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The short names of the formats of each checkpoint, without formats with a small edit, which no intervention may name.

    Args:
        formats: the formats of each checkpoint as the study writes them.
        prompts: the names of the study's own formats.
    """
    plain = {checkpoint: [spec for spec in specs if not is_edited(spec)] for checkpoint, specs in formats.items()}
    return {checkpoint: tuple(prompt_name(spec, prompts) for spec in specs) for checkpoint, specs in plain.items()}


def arm_names(arms: Arms) -> list[str]:
    """Everything that `sources` and `targets` may name: the checkpoints, then the arms."""
    return [*arms, *(f"{checkpoint}/{prompt}" for checkpoint, prompts in arms.items() for prompt in prompts)]


def are_named(names: Collection[str] | None, checkpoint: str, prompt: str) -> bool:
    """Whether an arm is among `sources` or `targets`, by its own name or by that of its checkpoint; None stands for all arms.

    Example:
        >>> are_named(["base"], "base", "chatml"), are_named(["base/vicuna"], "base", "chatml"), are_named(None, "base", "chatml")
        (True, False, True)
    """
    return names is None or checkpoint in names or f"{checkpoint}/{prompt}" in names


def shortest(names: Collection[str], arms: Arms) -> list[str] | None:
    """The same arms in one form, whichever way they are written: the form that a digest compares.

    Args:
        names: names of checkpoints and arms.
        arms: the arms of the study.

    Returns:
        A checkpoint in place of its arms where all of them are named; None if every arm is named. Other names are kept.

    Example:
        >>> arms = {"base": ["chatml", "vicuna"], "chat": ["native"]}
        >>> shortest(["base/chatml", "chat/native"], arms), shortest(["base/vicuna", "base/chatml", "chat"], arms)
        (['base/chatml', 'chat'], None)
    """
    whole = [name for name, prompts in arms.items() if all(are_named(names, name, prompt) for prompt in prompts)]
    if len(whole) == len(arms):
        return None
    return list(dict.fromkeys(name.partition("/")[0] if name.partition("/")[0] in whole else name for name in names))
