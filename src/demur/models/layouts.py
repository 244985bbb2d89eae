"""Layouts: a layout says where one architecture family reads and writes its residual stream.

Layouts are written down in `models/families.py`, and each is proved when a checkpoint is loaded (`engine/site_proof.py`). Nothing
is guessed from the names of modules. A path that leads nowhere in a model is refused.
"""

from dataclasses import dataclass
from functools import total_ordering
from typing import Any, Literal, get_args

from torch import nn

from demur.core.errors import InputError, nearest

Site = Literal["resid_pre", "resid_mid", "resid_post"]
SITES: tuple[Site, ...] = get_args(Site)


@total_ordering
@dataclass(frozen=True)
class Point:
    """One point of the residual stream. Points are ordered along the stream.

    Make one with `point`, which knows that `resid_post` of a layer and `resid_pre` of the next are the same point. The point
    after the last block is `resid_pre` of layer `n_layers`.

    Attributes:
        layer: the block that reads the stream at this point.
        site: `resid_pre`, the input of that block, or `resid_mid`, between its attention and its MLP.

    Example:
        >>> point(3, "resid_post") == point(4, "resid_pre")
        True
        >>> point(3, "resid_mid") < point(4, "resid_pre")
        True
    """

    layer: int
    site: Literal["resid_pre", "resid_mid"]

    def __lt__(self, other: "Point") -> bool:
        return (self.layer, self.site == "resid_mid") < (other.layer, other.site == "resid_mid")

    def named(self, n_layers: int) -> str:
        """The words for this point in a message about a model of `n_layers` blocks.

        Args:
            n_layers: the number of blocks.

        Returns:
            Site and layer. The point after the last block is called `resid_post` of that block.
        """
        if self.layer == n_layers:
            return f"resid_post of layer {n_layers - 1}"
        return f"{self.site} of layer {self.layer}"


def point(layer: int, site: Site) -> Point:
    """The point of the stream at a site of a layer.

    Args:
        layer: index of the block, from 0.
        site: `resid_pre`, `resid_mid` or `resid_post`.

    Returns:
        The point. `resid_post` of a layer gives `resid_pre` of the next layer, which is the same point.
    """
    return Point(layer + 1, "resid_pre") if site == "resid_post" else Point(layer, site)


@dataclass(frozen=True)
class Layout:
    """Where one architecture family keeps its blocks, and what they add to the residual stream.

    Attributes:
        family: the `model_type` of its config.
        blocks: the path of the list of blocks in the model.
        attention: the path, inside a block, of the module whose output the attention branch adds to the stream. That is the norm
            after attention in families that have one, and the last linear map where the attention module adds the stream itself.
        mlp: the same for the MLP branch.
        parallel: whether both branches read the same stream. Such blocks have no `resid_mid`.
        multiplier: the factor by which the output of a branch is multiplied before it is added.
        left_out: indices, in the list, of modules that do not run on text. They are not counted as blocks.
        rows_apart: whether blocks get arguments with an entry for each row and head of the batch. All blocks must then run on the
            same rows.

    Example:
        >>> import demur
        >>> demur.Layout("gptj", "transformer.h", "attn", "mlp", parallel=True).sites
        ('resid_pre', 'resid_post')
    """

    family: str
    blocks: str
    attention: str
    mlp: str
    parallel: bool = False
    multiplier: float = 1.0
    left_out: tuple[int, ...] = ()
    rows_apart: bool = False

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites this family has."""
        return ("resid_pre", "resid_post") if self.parallel else SITES

    def find_blocks(self, model: nn.Module) -> list[nn.Module]:
        """The blocks of a model, in order.

        Raises:
            InputError: if the path does not lead to a list of modules, or the list has no blocks.
        """
        blocks = [block for index, block in enumerate(self._listed(model)) if index not in self.left_out]
        if not blocks:
            raise InputError(f"the list at {self.blocks!r} of this {self.family!r} model holds no blocks")
        return blocks

    def find_left_out(self, model: nn.Module) -> list[nn.Module]:
        """The modules of the list that do not run on text."""
        listed = self._listed(model)
        return [listed[index] for index in self.left_out]

    def _listed(self, model: nn.Module) -> nn.ModuleList:
        listed = _follow(model, self.blocks)
        if not isinstance(listed, nn.ModuleList):
            raise InputError(
                f"the layout of {self.family!r} expects a list of blocks at {self.blocks!r}, but this model has "
                f"{type(listed).__name__}; correct the layout with demur.families.register"
            )
        return listed

    def check_sites(self, sites: tuple[Site, ...]) -> None:
        """Check that this family has all the given sites.

        Raises:
            InputError: if no site is given, and for a site that does not exist or that this family does not have.
        """
        if not sites:
            raise InputError(f"an intervention needs at least one site; {self.family!r} has {', '.join(self.sites)}")
        for site in sites:
            if site not in SITES:
                raise InputError(f"{site!r} is not a site of the residual stream; {nearest(site, SITES)}")
            if site not in self.sites:
                raise InputError(
                    f"{self.family!r} runs attention and MLP in parallel, so it has no {site!r}; use {' or '.join(self.sites)}"
                )


def _follow(module: nn.Module, path: str) -> Any:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def branch(block: nn.Module, path: str) -> nn.Module:
    """The module of a block at a path.

    Raises:
        InputError: if there is none.
    """
    found = _follow(block, path)
    if not isinstance(found, nn.Module):
        raise InputError(f"the layout expects a module at {path!r} of {type(block).__name__}, which has none")
    return found


def d_model_of(model: Any) -> int:
    """Width of the residual stream of a transformers model."""
    return int(model.config.get_text_config().hidden_size)


def kv_width_of(config: Any) -> int | None:
    """Width of the keys, and of the values, that one token adds to a layer's KV cache; None if the config does not say."""
    heads, width = getattr(config, "num_attention_heads", None), getattr(config, "hidden_size", None)
    groups = getattr(config, "num_key_value_heads", None) or heads
    head_width = getattr(config, "head_dim", None) or (width // heads if width and heads else None)
    return groups * head_width if groups and head_width else None
