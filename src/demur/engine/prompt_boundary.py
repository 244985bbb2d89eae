"""Finds the token positions of a forward pass that come after the prompt, with any KV cache or none.

transformers does not tell layers the token position or the end of the prompt, and padding has the same position id as the first
real token. So demur counts positions itself. If the end of the prompt cannot be known, `generated` is None, and an edit that
needs it raises an error.
"""

from dataclasses import dataclass, field
from typing import Any
from weakref import ReferenceType, ref

import torch
from jaxtyping import Bool
from torch import Tensor


@dataclass
class PromptBoundary:
    """Follows the forward passes of a model to find where the prompt ends.

    Attributes:
        prompt_width: number of token positions of the prompt, padding included; None if the first pass of a sequence is its
            prompt.
        forwards: how many forward passes there were.
        generated: which positions of the current pass come after the prompt, (seq,); None if that cannot be known.
    """

    prompt_width: int | None = None
    forwards: int = 0
    generated: Bool[Tensor, " seq"] | None = None
    _prompt: Tensor | None = field(default=None, repr=False)
    _cache: ReferenceType[Any] | None = field(default=None, repr=False)
    _width: int = 0

    # Any: whatever arguments the model is called with.
    def observe(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record the arguments of the next forward pass. Call this before every forward pass."""
        ids = kwargs.get("input_ids", args[0] if args else None)
        given = ids if ids is not None else kwargs["inputs_embeds"]
        cache = kwargs.get("past_key_values")
        start = 0 if cache is None else int(cache.get_seq_length())
        end = self.prompt_width
        if end is None:
            end = self._prompt_end(given, cache, start)
        self.generated = None if end is None else torch.arange(start, start + given.shape[1], device=given.device) >= end
        self._width = given.shape[1]
        self.forwards += 1

    def _prompt_end(self, given: Tensor, cache: Any, start: int) -> int | None:
        """The end of the prompt of the current sequence; None if it cannot be known.

        If several tokens come at once after a filled cache, they may be the rest of a prompt, a user's next turn or a draft. A
        cache that was filled by other forward passes may contain anything. In both cases the end is not known.
        """
        if start == 0 and (cache is not None or not self._continues(given)):
            self._prompt = given.detach().clone()
            self._cache = None if cache is None else ref(cache)
        elif start > 0:
            known = self._prompt is not None and (
                self._cache() is cache if self._cache is not None else start == self._prompt.shape[1]
            )
            if not known or given.shape[1] != 1:
                return None
            self._cache = ref(cache)
        return None if self._prompt is None else self._prompt.shape[1]

    def _continues(self, given: Tensor) -> bool:
        """Whether this is the next step of a loop without a cache: the whole sequence again, one token longer."""
        known = self._prompt
        return (
            known is not None
            and given.ndim == known.ndim
            and given.shape[0] == known.shape[0]
            and given.shape[1] == self._width + 1
            and torch.equal(given[:, : known.shape[1]], known)
        )
