"""What kind of content a GGUF file holds.

Only a whole language model in one file can be converted; everything else is refused.
"""

from demur.core.errors import InputError
from demur.models.gguf.metadata import Facts

_WHAT_TO_DO = {
    "adapter": "it is a LoRA adapter; give the model's file, and the adapter as a PEFT folder",
    "controlvector": "it is a control vector; give it as a direction (--direction), and a model beside it",
    "mmproj": "it is the part of a model that reads images; give the file of the language model",
    "vocab": "it is a vocabulary without weights; give the file of the model",
    "imatrix": "it holds statistics for quantising; give the file of the model",
}


def require_one_model(facts: Facts) -> None:
    """Check that a file is a language model, and all of it.

    Raises:
        InputError: for an adapter, a control vector, another kind of content, and one part of several.
    """
    kind = str(facts.values.get("general.type", "model"))
    if facts.architecture in ("controlvector", "imatrix"):
        kind = facts.architecture
    if any(key.startswith("adapter.") for key in facts.values) or any(".lora_" in name for name in facts.tensors):
        kind = "adapter"
    if kind != "model":
        why = _WHAT_TO_DO.get(kind, "only files of the type 'model' can be loaded")
        raise InputError(f"{facts.name} is no model but states general.type = {kind!r}: {why}")
    parts = facts.values.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        number = facts.values.get("split.no", 0)
        raise InputError(
            f"{facts.name} is part {int(number) + 1 if isinstance(number, int) else number} of {parts}, and one whole file is "
            "expected; join the parts with llama.cpp's llama-gguf-split --merge"
        )
    if not facts.tensors:
        raise InputError(f"{facts.name} holds no weights, only a header; {_WHAT_TO_DO['vocab']}")
