"""A study of two checkpoints as a commented TOML file, to begin from."""

import re
from collections.abc import Iterator, Mapping, Sequence

import tomli_w

from demur.study.spec import Study

_COMMENTS: Mapping[str, Sequence[str]] = {
    "name": ("The run goes to runs/NAME unless --out gives another folder.",),
    "judges": ("Figures use the first judge. demur report --judge adds one later, without new completions.",),
    "max_new_tokens": ("The length of a completion, in tokens.",),
    "dtype": ("float32, bfloat16 or float16.",),
    "[checkpoints.base]": ("A hub id owner/name[@revision], a folder, or a .gguf file; adapter = a PEFT adapter on top of it.",),
    "[prompts]": ("Prompt formats of this study by name: texts with {instruction}.",),
    "[instructions.harmful]": (
        "A registered set, or a .csv, .json, .jsonl, .parquet or .txt file, or file:column.",
        "test: how many instructions refusals are counted on.",
    ),
    "[direction]": (
        'pairs: training instructions of each kind. layers: a list, or "select" to choose one on validation instructions.',
    ),
    "[[interventions]]": ("What is done with each direction, in each checkpoint.",),
    "[selection]": ('How settings with the value "select" are chosen. instructions: validation instructions of each kind.',),
    "[controls]": ("Null directions: a claim counts only if the real direction does more than these.",),
}
"""Comments by the line that they stand above: a key of the study, or the head of a table."""


def commented_toml(study: Study) -> str:
    """A study as TOML with comments, without the defaults that hardly anyone changes.

    Args:
        study: the study.

    Returns:
        A text that `load_study` reads as the same study.
    """
    data = study.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    data |= {"max_new_tokens": study.max_new_tokens, "dtype": study.dtype}
    for name, spec in study.checkpoints.items():
        data["checkpoints"][name]["prompts"] = list(spec.prompts)
    for label, given in study.instructions.items():
        data["instructions"][label]["test"] = given.test
    data["selection"] = {"instructions": study.selection.instructions}
    data["controls"] = study.controls.model_dump(mode="json", exclude_none=True)
    edits = data.pop("interventions", [])
    plain = {key: value for key, value in data.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in data.items() if isinstance(value, dict) and value}
    text = tomli_w.dumps(plain) + "\n" + tomli_w.dumps(tables)
    # tomli_w would write short lists of tables in one line.
    text += "".join(f"\n[[interventions]]\n{tomli_w.dumps(edit)}" for edit in edits)
    return "\n".join(_commented(text.splitlines())) + "\n"


def _commented(lines: Sequence[str]) -> Iterator[str]:
    left = dict(_COMMENTS)
    for line in lines:
        key = line if line.startswith("[") else re.split(r"[ .=]", line, maxsplit=1)[0]
        yield from (f"# {comment}" for comment in left.pop(key, ()))
        yield line
