"""Runs a sequence classifier of transformers, such as Minos-v1: texts in, the probability of each class out.

Rows are padded on the right, as these models were trained, and the mask hides the padding, so a row's result does not depend on
the other rows. A text that is longer than the model reads is refused, never cut.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from demur.core.errors import InputError
from demur.engine.batching import group
from demur.inputs.prompts import whole_text_ids
from demur.models.device_placement import find_device, input_device
from demur.models.file_digests import check_downloads, digest_of_files, weight_files
from demur.models.library_errors import first_line
from demur.models.sources import at_hand, find_model
from demur.models.third_party_logs import quiet_transformers


@dataclass(frozen=True, eq=False)
class SequenceClassifier:
    """A classifier in memory.

    Attributes:
        model: the transformers model, in evaluation mode.
        tokenizer: its tokenizer.
        described: its source and a digest of its weights.
    """

    model: Any
    tokenizer: Any
    described: str

    @property
    def most_tokens(self) -> int | None:
        """The longest text that the model reads, in tokens; None if its config does not say."""
        found = getattr(self.model.config, "max_position_embeddings", None)
        return int(found) if isinstance(found, int) else None

    def probabilities(self, texts: Sequence[str], batch_tokens: int) -> Iterator[dict[int, dict[str, float] | str]]:
        """The probability of each class, batch after batch.

        Args:
            texts: the texts.
            batch_tokens: the most tokens in a batch, padding included.

        Yields:
            For each finished batch, index of the text -> probability by the name of the class; or a reason, in one sentence, for
            a text that is too long.
        """
        ids = whole_text_ids(self.tokenizer, texts)
        limit = self.most_tokens
        long = {place: len(row) for place, row in enumerate(ids) if limit is not None and len(row) > limit}
        if long:
            yield {place: f"the text has {n:,} tokens and this model reads {limit:,}" for place, n in long.items()}
        left = [place for place in range(len(ids)) if place not in long]
        for batch in group([len(ids[place]) for place in left], batch_tokens):
            places = [left[index] for index in batch]
            yield dict(zip(places, self._batch([ids[place] for place in places]), strict=True))

    def _batch(self, rows: Sequence[Sequence[int]]) -> list[dict[str, float]]:
        device, width = input_device(self.model), max(map(len, rows))
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        with torch.inference_mode():
            found = self.model(input_ids=ids, attention_mask=mask).logits.float().softmax(-1).cpu()
        names = [str(self.model.config.id2label[index]) for index in range(found.shape[-1])]
        return [dict(zip(names, map(float, row), strict=True)) for row in found]


def load_classifier(model: str, revision: str | None, dtype: torch.dtype, device: str) -> SequenceClassifier:
    """Load a sequence classifier. No code of the checkpoint runs.

    Args:
        model: a hub id or a folder.
        revision: a revision of the hub id.
        dtype: the precision of the weights.
        device: the name of a device, as for `demur.load_checkpoint`.

    Raises:
        InputError: if something is missing, or if weights are missing, which transformers would fill with random numbers.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = at_hand(find_model(model, revision))
    if source.path is None or source.kind == "gguf":
        raise InputError(f"{model!r} is no folder of a sequence classifier; give a hub id or a folder with config.json")
    check_downloads(model, source.path)
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.path, local_files_only=True, trust_remote_code=False)
            made, report = AutoModelForSequenceClassification.from_pretrained(
                source.path, local_files_only=True, trust_remote_code=False, dtype=dtype, output_loading_info=True
            )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise InputError(f"{model!r} cannot be loaded as a sequence classifier: {first_line(error)}") from error
    for name in sorted(report["missing_keys"]):
        raise InputError(
            f"the weight {name!r} of {model!r} is missing, so it is no trained sequence classifier; name another model"
        )
    digest = digest_of_files(weight_files(source.path))[:16]
    place = find_device(device)
    if place is None:
        raise InputError(f"a sequence classifier cannot be spread over devices; give device auto, cpu or cuda for {model!r}")
    made.eval().to(place)
    return SequenceClassifier(made, tokenizer, f"{source.describe()} {digest}")
