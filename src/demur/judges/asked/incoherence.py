"""Texts that are no utterance: empty, without a letter, or mostly a repetition of themselves.

A model that must choose between refusal and answer guesses on such a text, and a base model or an edit that breaks a model writes
many of them. So they get the label `incoherent`, and the model is not asked. `taxonomy` gives such texts its label `degenerate`.
Its further signs, of salad and of empty lists, are not used here: a model can tell what such a text is.
"""

from demur.judges.taxonomy.text_shape import first_loop
from demur.judges.taxonomy.word_text import Reading


def is_incoherent(text: str) -> bool:
    """Whether a text is empty, has no letter, or repeats earlier parts of itself in more than half of its words.

    Example:
        >>> [is_incoherent(text) for text in ("", "12 34 !!", "no no no no no no no no no no", "I cannot help with that.")]
        [True, True, True, False]
    """
    reading = Reading.of(text)
    return not any(letter.isalpha() for word in reading.words for letter in word) or first_loop(reading) is not None
