"""Judges of kind `classifier`: a model in this process, run by the engine like any other checkpoint, in batches.

The model is loaded when the first question is asked, and stays in memory while the judge is used.
"""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import ClassVar

import torch
from pydantic import BaseModel, JsonValue

from demur.core.errors import InputError
from demur.engine.checkpoints import Checkpoint, load_checkpoint
from demur.engine.engine_protocol import Decoding, Row
from demur.engine.load_transformers import DTYPES
from demur.engine.model_judges.local_settings import UNDECIDED, LocalSettings
from demur.engine.model_judges.sequence_classifier import SequenceClassifier, load_classifier
from demur.inputs.prompts import Prompt, chat_text
from demur.judges.asked.judge_file import version_of
from demur.judges.asked.judge_format import Question
from demur.judges.asked.model_families import family_of
from demur.judges.asked.model_judge import ModelJudge, Reply, Unanswered
from demur.judges.judge import Needs
from demur.models.sources import find_model

CLASSIFIER_TOKENS = 8192
"""The most tokens in a batch of a sequence classifier, unless its file says otherwise."""


class ClassifierJudges:
    """The kind `classifier` of judge files."""

    name: ClassVar[str] = "classifier"
    settings: ClassVar[type[BaseModel]] = LocalSettings

    def make(self, name: str, settings: BaseModel) -> "LocalJudge":
        """A judge that runs a model here. Nothing is loaded yet."""
        assert isinstance(settings, LocalSettings)
        return LocalJudge(name, settings)


class LocalJudge(ModelJudge):
    """A judge that runs a model in this process.

    Attributes:
        settings: the keys of its file.
    """

    needs: Needs = "model"
    # Outputs are stored batch by batch in any case, and a large number lets the engine put rows of one length together.
    batch_size: ClassVar[int] = 2048

    def __init__(self, name: str, settings: LocalSettings) -> None:
        asked = settings.asked
        version = version_of("classifier", settings, UNDECIDED, asked.name, asked.version)
        family = asked.family or family_of(settings.model)
        super().__init__(name, version, asked, family=family, coherence=settings.coherence)
        self.settings = settings

    def check_needs(self) -> None:
        """Raises `InputError` if the model is neither on this machine nor on a hub that can be reached."""
        find_model(self.settings.model, self.settings.revision)

    def request(self, question: Question) -> dict[str, JsonValue]:
        """The question with the settings of decoding."""
        return {"question": question.plain(), "max_tokens": self._most_tokens, "dtype": self.settings.dtype}

    @property
    def _most_tokens(self) -> int:
        return self.settings.max_tokens or self.asked.max_tokens

    def replies(self, questions: Sequence[Question], spent: float) -> Iterator[Sequence[tuple[int, Reply | Unanswered]]]:  # noqa: ARG002
        """Run the model. See `ModelJudge.replies`. A model here costs nothing."""
        if self.asked.answers == "classes":
            yield from self._classes(questions)
        elif self.asked.answers == "tokens":
            yield from self._token_probabilities(questions)
        else:
            yield from self._texts(questions)

    @cached_property
    def _classifier(self) -> SequenceClassifier:
        settings = self.settings
        return load_classifier(settings.model, settings.revision, DTYPES[settings.dtype], settings.device)

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        settings = self.settings
        return load_checkpoint(
            settings.model,
            adapter=settings.adapter,
            revision=settings.revision,
            dtype=settings.dtype,
            quantise=settings.quantise,
            device=settings.device,
            name=self.name,
        )

    @property
    def _model(self) -> str:
        return f"{self._checkpoint.source} {self._checkpoint.fingerprint[:16]}"

    def _classes(self, questions: Sequence[Question]) -> Iterator[list[tuple[int, Reply | Unanswered]]]:
        batch_tokens = self.settings.batch_tokens or CLASSIFIER_TOKENS
        for finished in self._classifier.probabilities([question.text for question in questions], batch_tokens):
            yield [
                (place, Unanswered(found) if isinstance(found, str) else Reply(json.dumps(found), self._classifier.described))
                for place, found in finished.items()
            ]

    def _rows(self, questions: Sequence[Question]) -> list[tuple[int, ...]]:
        """Token ids of the prompts. A chat template writes its own special tokens; a text gets those of the tokenizer."""
        tokenizer, chats = self._checkpoint.tokenizer, self.asked.asks == "chat"
        texts = [chat_text(tokenizer, question.messages) if chats else question.text for question in questions]
        prompt = Prompt(f"judge format {self.asked.name}", "{instruction}", not chats, tokenizer, control_tokens="tokens")
        return [tuple(ids) for ids in prompt.encode(texts)]

    def _texts(self, questions: Sequence[Question]) -> Iterator[list[tuple[int, Reply | Unanswered]]]:
        rows, left = self._fitting(questions)
        if left:
            yield left
        engine, tokenizer = self._checkpoint.engine, self._checkpoint.tokenizer
        decoding = Decoding(self._most_tokens, engine.stop_ids, engine.pad_id)
        places = list(rows)
        batches = engine.generate([Row(rows[place]) for place in places], decoding, batch_tokens=self.settings.batch_tokens)
        for finished in batches:
            yield [
                (places[index], self._reply(tokenizer.decode(ids, skip_special_tokens=True), rows[places[index]], len(ids)))
                for index, ids in finished.items()
            ]

    def _reply(self, output: str, prompt: Sequence[int], new_tokens: int) -> Reply:
        return Reply(output, self._model, len(prompt), new_tokens)

    def _token_probabilities(self, questions: Sequence[Question]) -> Iterator[list[tuple[int, Reply | Unanswered]]]:
        """The probabilities of the next tokens that the format reads, among each other, as the published code computes them."""
        rows, left = self._fitting(questions)
        if left:
            yield left
        engine, places = self._checkpoint.engine_for("next tokens"), list(rows)
        answers = self.asked.answer_tokens
        tokenizer = self._checkpoint.tokenizer
        ids = [tokenizer.convert_tokens_to_ids(token) for token in answers]
        unknown = [token for token, index in zip(answers, ids, strict=True) if index in (None, tokenizer.unk_token_id)]
        if unknown:
            raise InputError(
                f"the model of the judge {self.name!r} has no token {unknown[0]!r}, which its format reads; check model"
            )
        for found in engine.next_tokens([Row(rows[place]) for place in places], batch_tokens=self.settings.batch_tokens):
            shares = found.logits[:, torch.tensor(ids)].softmax(-1).tolist()
            yield [
                (places[index], self._reply(json.dumps(dict(zip(answers, row, strict=True))), rows[places[index]], 0))
                for index, row in zip(found.indices, shares, strict=True)
            ]

    def _fitting(self, questions: Sequence[Question]) -> tuple[dict[int, tuple[int, ...]], list[tuple[int, Reply | Unanswered]]]:
        """Prompts that fit into the model's context by index, and a reason for each of the others. None is cut."""
        limit = getattr(getattr(self._checkpoint.engine, "model", None), "config", None)
        most = getattr(limit, "max_position_embeddings", None)
        rows: dict[int, tuple[int, ...]] = {}
        left: list[tuple[int, Reply | Unanswered]] = []
        for place, ids in enumerate(self._rows(questions)):
            wanted = len(ids) + (self._most_tokens if self.asked.answers == "text" else 0)
            if isinstance(most, int) and wanted > most:
                reason = f"the prompt has {len(ids):,} tokens and this model reads {most:,}, its answer included"
                left.append((place, Unanswered(reason)))
            else:
                rows[place] = ids
        return rows, left
