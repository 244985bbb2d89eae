"""Families of language models, by the words in their names: to warn where a judge and what it judges are of one family.

In the completions of shashankskagnihotri/safety_pretraining, Qwen3 as a judge of Qwen3 called 50 of 50 answers refusals where
phrases found one.
"""

import re

_WORDS = {
    "qwen": "qwen", "qwq": "qwen", "llama": "llama", "vicuna": "llama", "gemma": "gemma", "gemini": "gemini", "yi": "yi",
    "mistral": "mistral", "mixtral": "mistral", "ministral": "mistral", "magistral": "mistral", "granite": "granite",
    "phi": "phi", "olmo": "olmo", "gpt": "gpt", "claude": "claude", "deepseek": "deepseek", "smollm": "smollm",
    "pythia": "pythia", "falcon": "falcon", "command": "command", "grok": "grok", "glm": "glm", "minos": "modernbert",
    "modernbert": "modernbert",
}  # fmt: skip
"""Word at the beginning of a part of a name -> family. `gpt2` and the GPT models of servers share no weights and no data."""

_NOT = ("gpt2", "gpt_neo", "gpt_neox", "gpt-neo", "gpt-j")


def family_of(name: str) -> str:
    """The family that a model's name names; empty if it names none.

    Example:
        >>> [family_of(name) for name in ("Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.1-8B", "gpt2", "mine/a-model")]
        ['qwen', 'llama', '', '']
    """
    lowered = name.casefold()
    if any(part in lowered for part in _NOT):
        return ""
    # The last part of a path is the model, and the first is its owner.
    for part in reversed(lowered.replace(":", "/").split("/")):
        for word in re.split(r"[\s_.-]+", part):
            for known, family in _WORDS.items():
                if re.fullmatch(rf"{known}[\d.]*[a-z]?\d*", word):
                    return family
    return ""
