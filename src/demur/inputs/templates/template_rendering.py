"""Renders a tokenizer's chat template for one user turn, within limits of time and size.

A template is a program that comes with a checkpoint. Before its first use, a process of its own finds out whether it ends and
stays small (`rendering_guard`). After that, transformers renders it here, and a template that takes too long with some
instruction is stopped as well.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, lru_cache
from types import FrameType
from typing import Any

from demur.core.errors import InputError
from demur.inputs.prompt_formats import FORMATS, SLOT
from demur.inputs.templates import rendering_guard

MARKER = "demurinstructionmarker"
"""Stands for the instruction. It has no braces, because a template may treat braces in a special way."""

WAY_OUT = f"give another prompt format with --prompt or `prompts`: a name ({', '.join(FORMATS)}) or a text with {SLOT}"
GUARD_SECONDS, SECONDS, LONGEST_WAIT = 3.0, 5.0, 60.0
"""The most processor time of a rendering in the process that tries a template, the most in this one, and the longest wait for the
former."""

_LIMITS = {
    rendering_guard.TOO_LONG: "takes more than {seconds:g} seconds",
    rendering_guard.TOO_MUCH_MEMORY: f"takes more than {rendering_guard.BYTES / 2**30:.0f} GiB of memory",
    rendering_guard.TOO_MUCH_TEXT: f"makes more than {rendering_guard.CHARACTERS:,} characters",
}


class TemplateFailed(InputError):
    """A chat template that cannot be rendered. The message has the template's own words and the way out."""


class TemplatePassedLimit(TemplateFailed):
    """A chat template that takes too long, or makes too much."""


class _TookTooLongError(Exception):
    pass


@dataclass(frozen=True)
class Rendering:
    """A way to render a tokenizer's chat template: one user turn, and the beginning of the answer.

    Attributes:
        tokenizer: a transformers tokenizer.
        as_parts: whether the content of the turn is a list of parts, as templates of models that also see want it.
        switches: further variables of the template.
        closing: text after the prompt, which ends a thought that the template begins.
        system: the sentence of a system turn before the user's; empty for none.
    """

    tokenizer: Any
    as_parts: bool = False
    switches: Mapping[str, object] = field(default_factory=dict)
    closing: str = ""
    system: str = ""

    def __call__(self, instruction: str) -> str:
        """The prompt of an instruction.

        Raises:
            TemplateFailed: if the template raises an error or passes a limit.
        """
        # A template may write the date, and a process may go on past midnight.
        return self._kept(instruction, date.today())

    @cached_property
    def _kept(self) -> Callable[[str, date], str]:
        return lru_cache(maxsize=4096)(self._rendered)

    def _rendered(self, instruction: str, _day: date) -> str:
        turns = _turns(instruction, self.system, self.as_parts)
        _try_out(template_source(self.tokenizer), self.as_parts, bool(self.system))
        try:
            with _stopped_after(SECONDS):
                text = str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **self.switches))
        except _TookTooLongError as error:
            raise TemplatePassedLimit(_sentence(f"it takes more than {SECONDS:g} seconds", bool(self.system))) from error
        except Exception as error:  # a template is a program, and may raise anything
            raise TemplateFailed(_sentence(_words(error), bool(self.system))) from error
        if len(text) > rendering_guard.CHARACTERS + 10 * len(instruction):
            raise TemplatePassedLimit(_sentence(f"it {_LIMITS[rendering_guard.TOO_MUCH_TEXT]}"))
        return text + self.closing


def fitting(tokenizer: Any, system: str = "") -> Rendering:
    """The way to render a tokenizer's template that shows the instruction: as plain text, or else as a list of parts.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        system: the sentence of a system turn; empty for none.

    Raises:
        TemplateFailed: if the template can be rendered in neither way, with its own words for plain text; and if it does not show
            the system sentence.
    """
    found = _showing(*(Rendering(tokenizer, as_parts, system=system) for as_parts in (False, True)))
    # A template may trim the sentence.
    if system and found(MARKER).count(system.strip()) != 1:
        raise TemplateFailed(
            "the tokenizer's chat template has no system turn: a prompt with one does not show its sentence once; leave the "
            "system sentence out, or give a prompt format that has a place for it"
        )
    return found


def _showing(plain: Rendering, parts: Rendering) -> Rendering:
    try:
        if _shows(plain):
            return plain
    except TemplatePassedLimit:
        raise
    except TemplateFailed as error:
        with suppress(TemplateFailed):
            if _shows(parts):
                return parts
        raise error from None
    with suppress(TemplateFailed):
        if _shows(parts):
            return parts
    return plain


def _shows(rendering: Rendering) -> bool:
    return MARKER in rendering(MARKER).casefold()


def with_slot(rendering: Callable[[str], str]) -> str:
    """The text with `{instruction}`. A template may write the instruction in other letters, such as capitals.

    Args:
        rendering: makes the prompt of an instruction.

    Raises:
        InputError: if it does not show the instruction exactly once.
    """
    text = rendering(MARKER)
    shown = re.findall(re.escape(MARKER), text, re.IGNORECASE)
    if len(shown) != 1:
        raise InputError(f"the chat template shows the instruction {len(shown)} times, and once is expected; {WAY_OUT}")
    return text.replace(shown[0], SLOT)


def template_source(tokenizer: Any) -> str:
    """The text of the chat template that is used, empty if there is none."""
    found = getattr(tokenizer, "chat_template", None) or ""
    if isinstance(found, str):
        return found
    with suppress(Exception):  # a tokenizer with several templates and no default: rendering will say so
        return str(tokenizer.get_chat_template())
    return ""


@lru_cache(maxsize=256)
def _try_out(template: str, as_parts: bool, with_system: bool) -> None:
    """Render a template in a process of its own, which is ended when it passes a limit. Each template is tried once.

    Raises:
        TemplateFailed: with the limit that it passes.
    """
    turns = _turns(MARKER, "Be brief." if with_system else "", as_parts)
    variables = {"messages": turns, "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}
    given = json.dumps({"template": template, "variables": variables, "seconds": GUARD_SECONDS})
    # -I: nothing of this process's folder or environment is imported.
    command = [sys.executable, "-I", rendering_guard.__file__]
    try:
        status = subprocess.run(
            command, input=given, text=True, capture_output=True, timeout=LONGEST_WAIT, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        status = rendering_guard.TOO_LONG
    except OSError:
        return  # no process can be started here; a template that takes too long is stopped in this one
    if status in _LIMITS:
        raise TemplatePassedLimit(_sentence(f"it {_LIMITS[status].format(seconds=GUARD_SECONDS)}"))


def _turns(instruction: str, system: str, as_parts: bool) -> list[dict[str, object]]:
    """The conversation that a template gets."""
    said = [("system", system)] if system else []
    return [
        {"role": role, "content": [{"type": "text", "text": text}] if as_parts else text}
        for role, text in (*said, ("user", instruction))
    ]


@contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    """Stop the template code of this thread after some processor time, on all platforms: it is looked at line by line."""
    end = time.thread_time() + seconds

    def each_line(frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG001
        if time.thread_time() > end:
            raise _TookTooLongError
        return each_line

    def each_call(frame: FrameType, event: str, argument: object) -> Any:
        # jinja compiles a template to Python code with this file name.
        return each_line(frame, event, argument) if frame.f_code.co_filename == "<template>" else None

    before = sys.gettrace()
    sys.settrace(each_call)
    try:
        yield
    finally:
        sys.settrace(before)


def _words(error: Exception) -> str:
    """The text of an error; with its type where jinja or the template did not write it."""
    said, kind = str(error), type(error)
    return said if said and kind.__module__.startswith("jinja2") else f"{kind.__name__}: {said}".rstrip(": ")


def _sentence(words: str, with_system: bool = False) -> str:
    shown = " ".join(words.split())
    shown = shown if len(shown) <= 300 else shown[:297] + "..."
    turns, way_out = "one user turn", WAY_OUT
    if with_system:
        turns, way_out = "a system turn and one user turn", "leave the system sentence out, or give another prompt format"
    return f"the tokenizer's chat template cannot be rendered with {turns}: {shown.rstrip('.')}; {way_out}"
