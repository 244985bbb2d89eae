"""A prompt format, which is a text around `{instruction}`, and an instruction set, which is a function."""

LETTER = "Dear model,\n{instruction}\nYours\n"


def colours() -> dict[str, tuple[str, ...]]:
    """Harmless instructions by split."""
    names = ("red", "green", "blue", "white", "black", "grey", "pink", "brown")
    asked = tuple(f"name a thing that is {name}" for name in names)
    return {"train": asked[:4], "validation": asked[4:5], "test": asked[5:]}
