"""Where one architecture family reads and writes its residual stream: a registry keyed by the config's `model_type`.

A layout is a fact about a family, written down and then proved on load (`residual.prove_sites`); nothing is guessed from
module names. A family that is not registered is refused with a sentence that says how to add it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from demur.errors import InputError, nearest

Site = Literal["resid_pre", "resid_mid", "resid_post"]
SITES: tuple[Site, ...] = get_args(Site)


@dataclass(frozen=True)
class Layout:
    """Module paths of one family; `attention` and `mlp` are relative to a block.

    `attention` names the module whose output is what the attention branch adds to the stream, so the norm after attention
    in the families that have one; `mlp` likewise. `parallel` blocks feed both branches from the same stream and have no
    `resid_mid`.
    """

    family: str
    blocks: str
    attention: str
    mlp: str
    parallel: bool = False

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites this family has."""
        return ("resid_pre", "resid_post") if self.parallel else SITES

    def find_blocks(self, model: nn.Module) -> nn.ModuleList:
        """The blocks of `model`, in order. Raises `InputError` where the path does not lead to a list of modules."""
        blocks = _follow(model, self.blocks)
        if not isinstance(blocks, nn.ModuleList) or len(blocks) == 0:
            raise InputError(
                f"the layout of {self.family!r} expects a list of blocks at {self.blocks!r}, but this model has "
                f"{type(blocks).__name__}; correct the layout with demur.layouts.register"
            )
        return blocks

    def check_sites(self, sites: tuple[Site, ...]) -> None:
        """Raises `InputError` for a site that does not exist or that this family does not have."""
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
    """The module of a block at `path`. Raises `InputError` where there is none."""
    found = _follow(block, path)
    if not isinstance(found, nn.Module):
        raise InputError(f"the layout expects a module at {path!r} of {type(block).__name__}, which has none")
    return found


def d_model_of(model: Any) -> int:
    """Width of the residual stream of a transformers model."""
    return int(model.config.get_text_config().hidden_size)


Rule = Callable[[Any], Layout]
_RULES: dict[str, Rule] = {}


def register(family: str, rule: Rule) -> None:
    """Add or replace a family: `rule` gets the model's config and returns its `Layout`."""
    _RULES[family] = rule


def families() -> tuple[str, ...]:
    """All registered `model_type`s."""
    return tuple(sorted(_RULES))


def layout_of(config: Any) -> Layout:
    """The layout of a transformers config. Raises `InputError` for a family that is not registered."""
    family = str(getattr(config, "model_type", "unknown"))
    if family not in _RULES:
        raise InputError(
            f"no layout is known for the architecture {family!r} ({nearest(family, families())}); "
            "describe it with demur.layouts.register, three paths, as docs/families.md shows"
        )
    return _RULES[family](config)


def _fixed(family: str, blocks: str, attention: str, mlp: str) -> None:
    layout = Layout(family, blocks, attention, mlp)
    register(family, lambda _: layout)


def _parallel_if(family: str, flag: str, blocks: str, attention: str, mlp: str) -> None:
    register(family, lambda config: Layout(family, blocks, attention, mlp, parallel=bool(getattr(config, flag))))


def _opt(config: Any) -> Layout:
    if not config.do_layer_norm_before:
        raise InputError(
            "this OPT checkpoint normalises the stream after each branch (do_layer_norm_before=False), so its blocks do "
            "not add to a residual stream; use an OPT checkpoint with do_layer_norm_before=True"
        )
    return Layout("opt", "model.decoder.layers", "self_attn", "fc2")


for _family in ("llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "smollm3"):
    _fixed(_family, "model.layers", "self_attn", "mlp")
_fixed("mixtral", "model.layers", "self_attn", "mlp")
for _family in ("gemma2", "gemma3_text"):
    _fixed(_family, "model.layers", "post_attention_layernorm", "post_feedforward_layernorm")
_fixed("olmo2", "model.layers", "post_attention_layernorm", "post_feedforward_layernorm")
_fixed("gpt2", "transformer.h", "attn", "mlp")
_fixed("gpt_neo", "transformer.h", "attn", "mlp")
_parallel_if("gpt_neox", "use_parallel_residual", "gpt_neox.layers", "attention", "mlp")
_parallel_if("stablelm", "use_parallel_residual", "model.layers", "self_attn", "mlp")
register("opt", _opt)
