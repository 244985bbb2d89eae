"""What a run stores of its instruction sets, and the check that they are still the same."""

from collections.abc import Mapping

from demur.analysis.manifest import InstructionFacts
from demur.core.errors import InputError
from demur.inputs.instructions import digest
from demur.study.preflight import Material
from demur.study.spec import Study


def instruction_facts(study: Study, name: str, material: Material) -> InstructionFacts:
    """The facts of one instruction set.

    Args:
        study: the study.
        name: the name of the set in the study.
        material: its instructions.
    """
    return InstructionFacts(
        source=material.source,
        split=study.instructions[name].split or study.split,
        n=len(material.test),
        sha256=digest(material.test),
        train_n=len(material.train),
        train_sha256=digest(material.train),
    )


def refuse_other_instructions(found: Mapping[str, InstructionFacts], known: Mapping[str, InstructionFacts]) -> None:
    """Check that instruction sets are those that a run began with.

    Args:
        found: the facts of the sets now, by label.
        known: those in the run.

    Raises:
        InputError: if a set differs.
    """
    for label, facts in found.items():
        # The source is not compared, because the same file may have another path now.
        if label not in known or facts != known[label].model_copy(update={"source": facts.source}):
            raise InputError(
                f"the {label} instructions of {facts.source!r} are not those this run began with; restore them, or give "
                "another --out, or --fresh"
            )
