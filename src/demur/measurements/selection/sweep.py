"""Scores candidate directions in a checkpoint by published criteria; `ranking.py` chooses from these scores.

All candidates and instructions run as rows of the same batches, and logits are computed after the last token only. Scores are
measured on validation instructions; the candidates were not made from these.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from demur.core.errors import InputError, WorkError
from demur.core.progress import Progress, silent
from demur.directions.direction import Direction
from demur.directions.geometry import projections
from demur.directions.separation import separation
from demur.engine.checkpoints import Checkpoint
from demur.inputs.handed.handed_arguments import Instructions, PromptLike, bound_pair, bound_prompt, instruction_list
from demur.inputs.prompts import Prompt
from demur.interventions.intervention import Intervention, RowEdits
from demur.measurements.divergence import refusal_log_odds
from demur.measurements.selection.candidate_scores import (
    Scores,
    Stage,
    ablations,
    additions,
    kl_stage,
    named_scores,
    score_in_stages,
    sweep_rows,
)
from demur.measurements.selection.candidates import Candidates, grid_activations
from demur.measurements.selection.ranking import (
    INDUCE_LEAST,
    KL_MOST,
    LAST_LAYERS,
    Selection,
    by_cosine,
    by_refusal,
    by_separation,
)


def refusal_scores(
    checkpoint: Checkpoint,
    instructions: Instructions,
    prompt: PromptLike,
    token_ids: Sequence[int],
    interventions: Sequence[RowEdits] = (None,),
) -> Float[Tensor, "intervention instruction"]:
    """Log-odds that the token after each prompt is a refusal token: Arditi et al. 2024, section 2.3.

    Args:
        checkpoint: the loaded checkpoint.
        instructions: the instructions.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        token_ids: the refusal tokens, for example from `demur.find_refusal_tokens`.
        interventions: each of them None, one edit, or several that act in order.

    Returns:
        (intervention, instruction), float64, in nats.

    Raises:
        InputError: if no token is given, if one is not in the vocabulary, or if there is nothing to score.

    Example:
        >>> import demur, torch
        >>> from transformers import GPT2Tokenizer, LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
        >>> tokenizer = GPT2Tokenizer({"<|endoftext|>": 0, "a": 1, "b": 2}, [])
        >>> checkpoint = demur.wrap(LlamaForCausalLM(config), tokenizer)
        >>> prompt = demur.prompt_format("{instruction}a", checkpoint)
        >>> demur.refusal_scores(checkpoint, ["a", "b", "ab"], prompt, [2]).shape
        torch.Size([1, 3])
    """
    prompt, instructions = bound_prompt(prompt, checkpoint), instruction_list(instructions)
    return sweep_rows(
        checkpoint, instructions, prompt, interventions, lambda _, logits, __: refusal_log_odds(logits, token_ids), (), silent
    )


def keep_refused(
    checkpoint: Checkpoint, harmful: Sequence[str], harmless: Sequence[str], prompt: Prompt, token_ids: Sequence[int]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Arditi et al.'s filter: harmful instructions with a refusal score above 0, harmless ones with one below 0.

    Args:
        checkpoint: the loaded checkpoint.
        harmful: harmful instructions.
        harmless: harmless instructions.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        token_ids: the refusal tokens.

    Returns:
        The harmful and the harmless instructions that pass.

    Raises:
        WorkError: if no harmful or no harmless instruction passes.
    """
    scored = [refusal_scores(checkpoint, side, prompt, token_ids)[0].tolist() for side in (harmful, harmless)]
    kept = (
        tuple(text for text, score in zip(harmful, scored[0], strict=True) if score > 0),
        tuple(text for text, score in zip(harmless, scored[1], strict=True) if score < 0),
    )
    if not all(kept):
        raise WorkError(
            f"the refusal score keeps {len(kept[0])} of {len(harmful)} harmful and {len(kept[1])} of {len(harmless)} harmless "
            f"instructions for {checkpoint.name!r}; leave the filter out, or select by 'cosmic' or 'separation'"
        )
    return kept


def select_by_refusal(
    checkpoint: Checkpoint,
    candidates: Candidates,
    harmful: Instructions,
    harmless: Instructions,
    prompt: PromptLike,
    token_ids: Sequence[int],
    *,
    kl_most: float | int | None = KL_MOST,
    induce_least: float | int | None = INDUCE_LEAST,
    last_layers: float | int | None = LAST_LAYERS,
    progress: Progress = silent,
) -> Selection:
    """Choose as Arditi et al. 2024, section 2.3: the candidate whose ablation leaves the lowest refusal score.

    `kl` is the mean KL divergence of the next token after harmless instructions when the candidate is ablated. If some of the
    instructions are enough to drop the candidate, it has `kl_at_least` instead, a lower bound. `induce` is the mean refusal score
    of harmless instructions when the candidate's raw vector is added once, at its layer's input. `bypass` is the mean refusal
    score of harmful instructions when the candidate is ablated.

    Args:
        checkpoint: the loaded checkpoint.
        candidates: from `demur.candidate_directions`, made from training instructions.
        harmful: harmful validation instructions; the candidates were not made from these.
        harmless: harmless validation instructions.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        token_ids: the refusal tokens.
        kl_most: a candidate with a larger `kl` is dropped; None drops none.
        induce_least: a candidate with a smaller `induce` is dropped; None drops none.
        last_layers: the share of layers, from the end, whose candidates are dropped; None drops none.
        progress: called with the number of rows that were just scored.

    Returns:
        Every place with its scores, or why it was dropped.

    Raises:
        InputError: if no token is given, if one is not in the vocabulary, or if there is nothing to score.

    Example:
        >>> import demur
        >>> demur.select_by_refusal(checkpoint, candidates, ["bb"], ["aaa"], prompt, [2], last_layers=None).criterion
        'arditi'
    """
    prompt, harmful, harmless = bound_pair(checkpoint, harmful, harmless, prompt)

    def odds(_: Tensor, logits: Tensor, __: Tensor) -> Tensor:
        return refusal_log_odds(logits, token_ids)

    def induce(directions: Sequence[Direction]) -> list[Scores]:
        return named_scores("induce", sweep_rows(checkpoint, harmless, prompt, additions(directions), odds, (), progress).mean(1))

    def bypass(directions: Sequence[Direction]) -> list[Scores]:
        return named_scores("bypass", sweep_rows(checkpoint, harmful, prompt, ablations(directions), odds, (), progress).mean(1))

    stages = (kl_stage(checkpoint, harmless, prompt, kl_most, progress), induce, bypass)

    def choose(scores: Sequence[Mapping[str, float | int]]) -> Selection:
        return by_refusal(scores, checkpoint.n_layers, kl_most=kl_most, induce_least=induce_least, last_layers=last_layers)

    return score_in_stages(candidates, stages, choose)


def select_by_cosine(
    checkpoint: Checkpoint,
    candidates: Candidates,
    harmful: Instructions,
    harmless: Instructions,
    prompt: PromptLike,
    *,
    kl_most: float | int | None = KL_MOST,
    last_layers: float | int | None = LAST_LAYERS,
    progress: Progress = silent,
) -> Selection:
    """Choose as COSMIC does (Siu et al. 2025): compare edited states with unedited states of the other kind. Needs no refusals.

    States are read at the last token, in the tenth of the layers where the training means of the kinds are least alike. `comply`
    is the cosine of ablated harmful states with harmless ones; `refuse` is that of harmless states plus the candidate with
    harmful ones. The authors' code reads outputs of blocks, not inputs, and drops more layers at position -1.

    Args:
        checkpoint: the loaded checkpoint.
        candidates: from `demur.candidate_directions`, made from training instructions.
        harmful: harmful validation instructions; the candidates were not made from these.
        harmless: harmless validation instructions.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        kl_most: a candidate with a larger `kl` (see `select_by_refusal`) is dropped; None drops none.
        last_layers: the share of layers, from the end, whose candidates are dropped; None drops none.
        progress: called with the number of rows that were just scored.

    Returns:
        Every place with its scores, or why it was dropped.

    Raises:
        InputError: if the candidates' positions do not end with -1.

    Example:
        >>> import demur
        >>> demur.select_by_cosine(checkpoint, candidates, ["bb"], ["aaa"], prompt, last_layers=None).criterion
        'cosmic'
    """
    prompt, harmful, harmless = bound_pair(checkpoint, harmful, harmless, prompt)
    if candidates.positions[-1] != -1:
        raise InputError("COSMIC reads the last token, so the candidates' positions must end with -1")
    alike = torch.nn.functional.cosine_similarity(candidates.harmful[-1], candidates.harmless[-1], dim=-1)
    layers = sorted(alike.argsort()[: max(1, int(0.1 * checkpoint.n_layers))].tolist())
    refused, complied = (
        grid_activations(checkpoint, side, prompt, (-1,))[:, 0, layers].double().mean((0, 1)) for side in (harmful, harmless)
    )

    def likeness(name: str, side: Sequence[str], edits: Sequence[Intervention], reference: Tensor) -> list[Scores]:
        states = sweep_rows(checkpoint, side, prompt, edits, lambda _, __, states: states.double().mean(1), layers, progress)
        return named_scores(name, torch.nn.functional.cosine_similarity(states.mean(1), reference[None], dim=-1))

    stages: tuple[Stage, ...] = (
        kl_stage(checkpoint, harmless, prompt, kl_most, progress),
        lambda directions: likeness("comply", harmful, ablations(directions), complied),
        lambda directions: likeness("refuse", harmless, additions(directions), refused),
    )

    choose = partial(by_cosine, n_layers=checkpoint.n_layers, kl_most=kl_most, last_layers=last_layers)
    return score_in_stages(candidates, stages, choose)


def select_by_separation(
    checkpoint: Checkpoint,
    candidates: Candidates,
    harmful: Instructions,
    harmless: Instructions,
    prompt: PromptLike,
    *,
    last_layers: float | int | None = LAST_LAYERS,
    progress: Progress = silent,
) -> Selection:
    """Choose the candidate that best separates harmful from harmless validation instructions.

    Args:
        checkpoint: the loaded checkpoint.
        candidates: from `demur.candidate_directions`, made from training instructions.
        harmful: harmful validation instructions; the candidates were not made from these.
        harmless: harmless validation instructions.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        last_layers: the share of layers, from the end, whose candidates are dropped; None drops none.
        progress: called with the number of instructions that were just read.

    Returns:
        Every place with its AUROC and gap, or why it was dropped.

    Raises:
        InputError: if there are fewer than two instructions of either kind.

    Example:
        >>> import demur
        >>> found = demur.select_by_separation(checkpoint, candidates, ["bb", "b"], ["aaa", "a"], prompt, last_layers=None)
        >>> found.best.place
        (-1, 1)
    """
    prompt, harmful, harmless = bound_pair(checkpoint, harmful, harmless, prompt)
    if min(len(harmful), len(harmless)) < 2:
        raise InputError(f"separation needs at least two instructions of each kind, not {len(harmful)} and {len(harmless)}")
    sides = [grid_activations(checkpoint, side, prompt, candidates.positions, progress=progress) for side in (harmful, harmless)]
    scores = []
    for (position, layer), direction in candidates.directions.items():
        row = candidates.positions.index(position)
        found = separation(*(projections(side[:, row, layer], direction.vector).numpy() for side in sides))
        scores.append({"position": float(position), "layer": float(layer), "auroc": found.auroc, "gap": found.gap})
    return by_separation(scores, checkpoint.n_layers, last_layers=last_layers)
