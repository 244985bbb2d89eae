"""Finds out whether a model thinks before it answers with a chat template, and how that can be turned off.

The template is rendered, and the result is looked at: whether the prompt ends inside a thought, what changes when a variable of
the template is turned off, and whether it names channels. What a checkpoint then writes is seen in its completions.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, TemplateError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from demur.core.errors import InputError
from demur.core.thought_marks import FINAL_CHANNEL, closing_mark, open_thought
from demur.inputs.prompt_formats import NO_THINKING
from demur.inputs.templates.template_rendering import MARKER, Rendering, fitting, template_source

_GIVEN = {
    "messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "unk_token", "pad_token", "sep_token",
    "raise_exception", "strftime_now", "namespace", "range", "dict", "true", "false", "none", "True", "False", "None",
}  # fmt: skip
"""Names that transformers or jinja gives to every template."""

_ABOUT_THOUGHTS = re.compile(r"think|thought|reason|cot(?:_|$)|deliberat|reflect", re.IGNORECASE)
_NEGATIVE = re.compile(r"^(?:no|non|disable|skip|without|hide|suppress)(?=[_A-Z]|think|reason|cot)", re.IGNORECASE)
_NONSENSE = "demurnothing"
_CHANNELS = re.compile(r"<\|channel\|>|channels:\s*analysis", re.IGNORECASE)


@dataclass(frozen=True)
class Thinking:
    """How a model comes to think before it answers with a chat template.

    Attributes:
        why: what was found, as a clause.
        sure: whether its first tokens are thoughts; if not, they may be.
        switches: values of the template's variables that turn thinking off; empty if there are none.
        closing: a text after the prompt that ends the thought or leads past it; empty if there is none.
    """

    why: str
    sure: bool = True
    switches: Mapping[str, object] = field(default_factory=dict)
    closing: str = ""

    @property
    def way_out(self) -> str:
        """What a user can do to see answers in the first tokens, as a clause."""
        if self.switches:
            name, value = next(iter(self.switches.items()))
            return f"the prompt format {NO_THINKING} sets {name} to {value!r}"
        if self.closing:
            return f"the prompt format {NO_THINKING} adds {self.closing!r}, so that the answer follows at once"
        return "this template has no switch for it, so judge longer completions"


def thinking_of(tokenizer: Any) -> Thinking | None:
    """Whether and why a model thinks before it answers with a tokenizer's chat template, in one user turn.

    Args:
        tokenizer: a transformers tokenizer with a chat template.

    Returns:
        What was found; None if nothing speaks for it.

    Raises:
        InputError: if the template cannot be rendered.
    """
    source, default = template_source(tokenizer), fitting(tokenizer)
    text = default(MARKER)
    tail = _tail(text)
    opening = open_thought(tail)
    switches = _switch(default, source)
    if switches:
        name, value = next(iter(switches.items()))
        off = _tail(Rendering(tokenizer, default.as_parts, switches)(MARKER))
        still = open_thought(off)
        return Thinking(
            f"the template lets a model think unless {name} is {value!r}",
            switches=switches,
            closing=_closing(off, still) if still else "",
        )
    if opening:
        return Thinking(f"the prompt ends inside a thought ({opening})", closing=_closing(tail, opening))
    if _CHANNELS.search(text) and not tail.rstrip().endswith(FINAL_CHANNEL):
        return Thinking("the template has channels, and a model writes its thoughts in the first one", closing=FINAL_CHANNEL)
    asked = _any_mark(text[: text.casefold().rfind(MARKER)])
    if asked:
        return Thinking(f"the prompt asks for thoughts ({asked})")
    handled = _any_mark(source)
    if handled and not _closed(tail):
        return Thinking(f"the template knows thoughts in earlier answers ({handled})", sure=False)
    return None


def can_think(tokenizer: Any) -> bool:
    """Whether a model's first tokens are thoughts with this chat template. False for a template that cannot be rendered."""
    with suppress(InputError):
        found = thinking_of(tokenizer)
        return found is not None and found.sure
    return False


def _tail(text: str) -> str:
    """The text after the instruction: the beginning of the answer."""
    return text[text.casefold().rfind(MARKER) + len(MARKER) :]


def _closing(tail: str, opening: str) -> str:
    return ("\n" if tail.endswith("\n") else "\n\n") + closing_mark(opening) + "\n\n"


def _any_mark(text: str) -> str:
    found = re.search(r"</?(?:\w+:)?(?:think|thought|reasoning)>|\[/?THINK\]|<\|(?:START|END)_THINKING\|>", text)
    return "" if found is None else found[0]


def _closed(tail: str) -> bool:
    """Whether the beginning of the answer has a thought that is ended already."""
    return (
        re.search(r"</(?:\w+:)?(?:think|thought|reason)\w*>|\[/THINK\]|END_THINKING|\u25c1/think", tail, re.IGNORECASE)
        is not None
    )


def _switch(default: Rendering, source: str) -> dict[str, object]:
    """The variable of the template, with the value, that turns thinking off; empty if none does or if it is off by default."""
    text = default(MARKER)
    found: dict[str, object] = {}
    for name in _variables(source):
        nonsense = _rendered(default, name, _NONSENSE)
        echoed = _NONSENSE in (nonsense or "")
        values = (True,) if _NEGATIVE.match(name) else (False, "off", "none", "disabled", 0)
        for value in values:
            off = _rendered(default, name, value)
            # A template that does the same for any other text only asks whether the variable is set.
            if off is None or off == text or (isinstance(value, str) and off == nonsense):
                continue
            if (_closed(_tail(off)) and not _closed(_tail(text))) or (open_thought(_tail(text)) and not open_thought(_tail(off))):
                return {name: value}
            # A variable whose value is only written into the prompt, such as the effort in gpt-oss, is no switch.
            if _ABOUT_THOUGHTS.search(name) and not echoed and not found:
                found = {name: value}
    return found


def _rendered(default: Rendering, name: str, value: object) -> str | None:
    with suppress(InputError):
        return Rendering(default.tokenizer, default.as_parts, {name: value})(MARKER)
    return None


def _variables(source: str) -> Iterator[str]:
    """The variables that a template takes from outside, those with a telling name first."""
    with suppress(TemplateError):
        names = meta.find_undeclared_variables(_environment().parse(source)) - _GIVEN
        yield from sorted(names, key=lambda name: (not _ABOUT_THOUGHTS.search(name), name))


def _environment() -> Environment:
    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - jinja's own form

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return Environment(extensions=["jinja2.ext.loopcontrols", Generation])
