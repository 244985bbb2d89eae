"""The words for an edit in labels, sentences and figures. A run stores them, so a report does not need the edit's code."""

from pydantic import BaseModel, ConfigDict


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
