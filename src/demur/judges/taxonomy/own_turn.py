"""Finds where a completion begins to write the user's next turn, as base checkpoints often do.

It knows the turn marks of demur's prompt formats and of other common ones. The text after the first such mark is no answer to the
request, so the judge `taxonomy` cuts it off. The published phrase judges do not.
"""

import re

_MARKS = re.compile(
    r"""
    <\|?(?:im_start|im_end|start_of_turn|end_of_turn|endoftext|end_of_text|eot_id|start_header_id)\|?>
    | <\|(?:user|human)\|>
    | \[/?INST\]
    | ^[ \t]*\#{1,6}[ \t]*(?:Instruction|Input|User|Human|Question)[ \t]*(?::|$)
    | ^[ \t]*(?:\*\*)?(?:USER|User|user|HUMAN|Human|human|Q|QUESTION|Question)(?:\*\*)?[ \t]?:
    | user:(?=\n)
    """,
    re.VERBOSE | re.MULTILINE,
)


def own_turn(text: str) -> str:
    """The text up to the first mark of another turn, or the whole text, without white space around it."""
    mark = _MARKS.search(text)
    return (text if mark is None else text[: mark.start()]).strip()
