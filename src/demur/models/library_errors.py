"""What the errors of transformers, peft and tokenizers say, cut to what fits into a sentence."""


def first_line(error: Exception) -> str:
    """The first line of a library's error, which says what was wrong without the list that follows."""
    if "trust_remote_code" in str(error):
        return "it needs code that comes with the checkpoint, and demur never runs such code; no option allows it"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A first line that ends with a colon needs the next one, and the text of a KeyError is only a name.
    line = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return f"{type(error).__name__} {line}".strip() if not lines or isinstance(error, KeyError) else line
