"""Extracts directions of a checkpoint from activations of harmful and harmless instructions, with an estimator.

There are two steps, which can be called separately: `training_sides` reads activations or their means, and `fit_directions` (in
`demur.directions.estimators.estimator`) estimates directions from them. `extract_directions` does both.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from demur.core.progress import Progress, silent
from demur.core.versions import versions
from demur.directions.direction import Direction
from demur.directions.estimators.estimator import Side, estimator, fit_directions
from demur.directions.provenance import ArchitectureFacts, InstructionFacts, Provenance
from demur.directions.running_mean import RunningMean
from demur.engine.capture import Means, capture, mean_activations
from demur.engine.checkpoints import Checkpoint
from demur.inputs.handed.handed_arguments import Instructions, PromptLike, bound_pair
from demur.inputs.instructions import digest
from demur.inputs.prompts import Prompt
from demur.inputs.training_texts import TrainingTexts
from demur.models.layouts import Site


def layers_with_directions(n_layers: int) -> range:
    """All layers but the first.

    At a template token, the first layer's input is the token's embedding. It is the same for every instruction, so it gives no
    direction.

    Args:
        n_layers: the number of layers of a checkpoint.
    """
    return range(1, n_layers)


def training_overlap(direction: Direction, instructions: Sequence[str]) -> list[int]:
    """Check whether a direction was made from the first n of these instructions.

    Args:
        direction: the direction, whose provenance has a hash of its training instructions.
        instructions: instructions in the order of their file.

    Returns:
        The number n for each label whose training instructions are the first n of these.
    """
    facts = (direction.provenance.harmful, direction.provenance.harmless)
    return [one.n for one in facts if one is not None and digest(instructions[: one.n]) == one.sha256]


def extract_directions(
    checkpoint: Checkpoint,
    harmful: Instructions,
    harmless: Instructions,
    prompt: PromptLike,
    *,
    layers: Sequence[int],
    site: Site = "resid_pre",
    position: int = -1,
    name: str | None = None,
    estimator: str = "difference-of-means",
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> list[Direction]:
    """Extract one direction for each layer.

    Args:
        checkpoint: the loaded checkpoint.
        harmful: harmful training instructions.
        harmless: harmless training instructions.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        layers: blocks, counted from 0.
        site: the point of the block: `resid_pre`, `resid_mid` or `resid_post`.
        position: the prompt token that is read; -1 is the last.
        name: the name of the directions; the checkpoint's if None.
        estimator: a registered estimator, or `module:Class`. The default is that of Arditi et al. 2024, section 2.3.
        batch_tokens: tokens in a batch, padding included; found from the free memory if None.
        progress: called with the number of instructions that were just read.

    Returns:
        The directions, in the order of `layers`.

    Raises:
        InputError: for an unknown layer, site, position or estimator; for a layer without a direction, as the first one may be.
        WorkError: if activations are not finite.

    The example of `demur.extract_direction` works for several layers with `layers=[...]` in place of `layer=`.
    """
    prompt, harmful, harmless = bound_pair(checkpoint, harmful, harmless, prompt)
    sides = training_sides(
        checkpoint,
        harmful,
        harmless,
        prompt,
        layers=layers,
        needs=_needs(estimator),
        site=site,
        position=position,
        batch_tokens=batch_tokens,
        progress=progress,
    )
    return fit_directions(
        *sides,
        name=name or checkpoint.name,
        layers=layers,
        estimator_name=estimator,
        site=site,
        position=position,
        provenance=provenance(checkpoint, prompt, position, harmful, harmless),
    )


def extract_direction(
    checkpoint: Checkpoint,
    harmful: Instructions,
    harmless: Instructions,
    prompt: PromptLike,
    *,
    layer: int,
    site: Site = "resid_pre",
    position: int = -1,
    name: str | None = None,
    estimator: str = "difference-of-means",
) -> Direction:
    """Extract the direction of one layer.

    Args:
        checkpoint: the loaded checkpoint.
        harmful: harmful training instructions.
        harmless: harmless training instructions.
        prompt: the prompt format, its name, or a text with `{instruction}`.
        layer: the block, counted from 0.
        site: the point of the block: `resid_pre`, `resid_mid` or `resid_post`.
        position: the prompt token that is read; -1 is the last.
        name: the name of the direction; the checkpoint's if None.
        estimator: a registered estimator, or `module:Class`. The default is that of Arditi et al. 2024, section 2.3.

    Returns:
        The direction.

    Raises:
        InputError: in the same cases as `extract_directions`.
        WorkError: if activations are not finite.

    Example:
        >>> import demur
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
        >>> words = Tokenizer(models.WordLevel({"<unk>": 0, "make": 1, "bombs": 2, "cakes": 3, ":": 4}, unk_token="<unk>"))
        >>> words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=5, **sizes))
        >>> checkpoint = demur.wrap(model, PreTrainedTokenizerFast(tokenizer_object=words), name="toy")
        >>> prompt = demur.prompt_format("{instruction} :", checkpoint)
        >>> demur.extract_direction(checkpoint, ["make bombs"], ["make cakes"], prompt, layer=1).vector.shape
        torch.Size([8])
    """
    return extract_directions(
        checkpoint, harmful, harmless, prompt, layers=[layer], site=site, position=position, name=name, estimator=estimator
    )[0]


def training_sides(
    checkpoint: Checkpoint,
    harmful: Sequence[str],
    harmless: Sequence[str],
    prompt: Prompt,
    *,
    layers: Sequence[int],
    needs: Literal["means", "activations"] = "means",
    site: Site = "resid_pre",
    position: int = -1,
    batch_tokens: int | None = None,
    progress: Progress = silent,
) -> tuple[Side, Side]:
    """Read the activations that estimators and controls take.

    Args:
        checkpoint: the loaded checkpoint.
        harmful: harmful training instructions.
        harmless: harmless training instructions.
        prompt: the prompt format with the checkpoint's tokenizer.
        layers: blocks, counted from 0.
        needs: `means` to keep the means only, which take the same memory for any number of instructions; `activations` to keep
            every activation as well.
        site: the point of the block.
        position: the prompt token that is read; -1 is the last.
        batch_tokens: tokens in a batch, padding included; found from the free memory if None.
        progress: called with the number of instructions that were just read.

    Returns:
        The harmful and the harmless side, at `layers` in their order.

    Raises:
        InputError: if a layer, site or position does not exist, or if a side has no instructions.
        WorkError: if activations are not finite.
    """
    sides = []
    for instructions in (harmful, harmless):
        if needs == "activations" and instructions:
            found = capture(
                checkpoint, instructions, prompt, layers=layers, site=site, position=position, batch_tokens=batch_tokens
            )
            progress(len(instructions))
            sides.append(replace(whole_side(found), texts=TrainingTexts(tuple(instructions))))
        else:
            means = mean_activations(
                checkpoint,
                instructions,
                prompt,
                layers=layers,
                site=site,
                position=position,
                batch_tokens=batch_tokens,
                progress=progress,
            )
            sides.append(side_of(means))
    return sides[0], sides[1]


def side_of(means: Means, layers: Sequence[int] | None = None) -> Side:
    """Make the input of an estimator from known means, at all of their layers or at some."""
    rows = [means.layers.index(layer) for layer in (means.layers if layers is None else layers)]
    return Side(means.mean[rows], means.mean_norm[rows], means.count)


def kept_side(means: Means, layers: Sequence[int]) -> Side:
    """Both the means and the activations at the layers that `mean_activations` was to keep, in their order."""
    return replace(side_of(means, layers), activations=means.kept)


def whole_side(activations: Float[Tensor, "instruction layer d_model"]) -> Side:
    """Make the input of an estimator from captured activations."""
    running = RunningMean()
    # In parts, so that only one part at a time takes memory in float64.
    for start in range(0, len(activations), 256):
        running.update(activations[start : start + 256])
    return Side(running.mean, running.mean_norm, running.count, activations)


def provenance(
    checkpoint: Checkpoint, prompt: Prompt, position: int, harmful: Sequence[str], harmless: Sequence[str]
) -> Provenance:
    """The provenance of a direction: weights, prompt, token read, instructions, versions."""
    return Provenance(
        checkpoint=checkpoint.name,
        source=checkpoint.source,
        adapter=checkpoint.adapter,
        fingerprint=checkpoint.fingerprint,
        architecture=ArchitectureFacts(family=checkpoint.engine.family, layers=checkpoint.n_layers),
        weights=str(checkpoint.dtype),
        quantised=checkpoint.quantised,
        prompt=prompt.name,
        prompt_text=prompt.template,
        prompt_digest=prompt.digest,
        token_read=prompt.token_read(position),
        harmful=InstructionFacts(n=len(harmful), sha256=digest(harmful)),
        harmless=InstructionFacts(n=len(harmless), sha256=digest(harmless)),
        versions=versions(),
    )


def _needs(name: str) -> Literal["means", "activations"]:
    return estimator(name).needs
