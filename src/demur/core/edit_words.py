"""The words for an edit in labels, sentences and figures. A run stores them, so a report does not need the edit's code."""

import json

from pydantic import BaseModel, ConfigDict, JsonValue


class EditWords(BaseModel):
    """The words for one action of a kind of edit. A kind has one of these for each of its actions.

    Attributes:
        action: the name of the action, such as `subtract` for the kind `add`. `Cell.action` holds this name.
        kind: the kind of edit that has this action.
        doing: the words before the direction's name, with a present participle: "adding a negative multiple of". If a
            sentence shows the coefficient with its sign, it uses the words of the action named like the kind, if there is one.
        noun: what the edit takes, as in "chat's direction": "direction", "subspace"; empty for a kind that takes nothing.
        into: the word between the direction and its target: "in" or "to".
        done: the past participle for labels and captions: "ablated", "added".
        moved: `done` with its preposition, for the question on the page: "ablated from", "added to".
        figure: the file name of the figure that shows such cells: "ablated", "added". Actions may share one.
        title: the title of that figure.
        own_layer: whether the edit acts at the direction's own layer if a study names no layers; if not, at every layer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: str
    kind: str
    doing: str
    noun: str = "direction"
    into: str
    done: str
    moved: str
    figure: str
    title: str
    own_layer: bool = False


WHEN = "when"
"""The setting of a cell that has the gate of its edit."""

GATE = "gate"
"""The name under which gates are stored and summarised among the measurements."""


def setting_text(name: str, value: JsonValue) -> str:
    """A setting of an edit as labels have it.

    Args:
        name: its name.
        value: its value; for `when`, the gate as a study names it.

    Example:
        >>> setting_text("level", 0.5), setting_text("when", {"layer": 7, "tokens": "last", "above": 0.1})
        ('level 0.5', 'gated by layer 7, last token, above 0.1')
    """
    if name != WHEN or not isinstance(value, dict):
        return f"{name} {json.dumps(value)}"
    source = f"{value['source']} " if value.get("source") else ""
    facts = [f"{source}layer {value.get('layer')}", *([str(value["estimator"])] if value.get("estimator") else [])]
    facts += ["last token"] if value.get("tokens") == "last" else []
    facts += [f"{side} {value[side]}" for side in ("above", "below") if value.get(side) is not None]
    return f"gated by {', '.join(facts)}"
