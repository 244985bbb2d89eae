"""The parts of a summary that come from folded cells: resamples of the training pairs, and small edits of the prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur.analysis.cell import Answer, Cell, Comparison, JudgedCell
from demur.analysis.cell_phrases import Words
from demur.analysis.edit_tests import EditTest, Probabilities
from demur.analysis.manifest import DirectionFacts
from demur.analysis.rates import Groups, Refusals
from demur.analysis.spreads.pairs_spread import PairsSpread, pairs_spreads, spread_answers
from demur.analysis.spreads.prompt_spread import PromptSpread, prompt_spreads, spelling_answers
from demur.directions.stored_vectors import cosine_matrix, stored_vector
from demur.inputs.prompt_edits import is_edited, split_edit
from demur.runs.stored_records import Results

if TYPE_CHECKING:
    from demur.runs.store import Store


def has_a_row(direction: DirectionFacts) -> bool:
    """Whether a direction is shown by itself: it is from all training pairs, and from a prompt without a small edit."""
    return direction.resample_of is None and not is_edited(direction.prompt or "")


@dataclass(frozen=True)
class Spreads:
    """The spreads of a run.

    Attributes:
        pairs: the edits under test with directions from resamples of the training pairs.
        prompts: the rates of refusals under small edits of the prompts.
        judge: the first judge, which sentences are about.
    """

    pairs: tuple[PairsSpread, ...]
    prompts: tuple[PromptSpread, ...]
    judge: str

    @classmethod
    def of(
        cls,
        store: "Store",
        results: Results,
        refusals: Refusals,
        unanswered: Sequence[Cell],
        compared: Sequence[Comparison],
        judges: Sequence[str],
        groups: Groups,
        probabilities: Probabilities,
    ) -> "Spreads":
        """Compute the spreads of a run.

        Args:
            store: the run.
            results: all results of the run.
            refusals: its verdicts.
            unanswered: the cells that were measured and have no completions.
            compared: the comparisons of edited cells with the unedited targets.
            judges: the judges of the run.
            groups: groups of near-duplicate instructions.
            probabilities: the probability of a refusal for the first judge, where it was measured.
        """
        stored = store.directions()
        resampled = [*results.resampled, *(cell for cell in unanswered if cell.resample_of is not None)]
        near = {each.name: each.cosine for each in stored if each.resample_of is not None}
        alike = _spelling_cosines(store, stored)
        pairs: list[PairsSpread] = []
        prompts: list[PromptSpread] = []
        for judge in judges:
            known = probabilities if judge == judges[0] else {}
            pairs += pairs_spreads(
                results.rows, resampled, compared, refusals, judge, groups=groups, probabilities=known, cosines=near
            )
            prompts += prompt_spreads(results.cells, refusals, judge, groups=groups, probabilities=known, cosines=alike)
        return cls(tuple(pairs), tuple(prompts), judges[0])

    def answers(self, cells: Sequence[JudgedCell], tests: Sequence[EditTest], words: Words) -> list[Answer]:
        """The spreads of the first judge in sentences.

        Args:
            cells: the judged cells that have a row of their own.
            tests: the tests of the edits from which a change is expected.
            words: the words for each action of the run's edits.
        """
        claimed = [test.cell.key for test in tests if test.comparison.family == "confirmatory"]
        mine = [one for one in self.pairs if one.judge == self.judge]
        return [
            *spread_answers(mine, cells, claimed, words),
            *spelling_answers([one for one in self.prompts if one.judge == self.judge]),
        ]


def _spelling_cosines(store: "Store", stored: Sequence[DirectionFacts]) -> dict[tuple[str, str], float]:
    """The lowest cosine over the layers between the directions of an arm with a small edit and of its format as it is."""
    own = [each for each in stored if not each.control and each.resample_of is None and not each.estimator]
    plain: Mapping[object, DirectionFacts] = {
        (each.source, each.prompt, each.layer, each.pairs_seed): each for each in own if not is_edited(each.prompt or "")
    }
    found: dict[tuple[str, str], float] = {}
    for each in (one for one in own if is_edited(one.prompt or "")):
        arm = str(each.source), str(each.prompt)
        other = plain.get((each.source, split_edit(arm[1])[0], each.layer, each.pairs_seed))
        files = [] if other is None else [store.direction_file(one.name) for one in (each, other)]
        contents = [content for content in files if content is not None]
        if len(contents) == 2:
            cosine = cosine_matrix([stored_vector(content, f"direction {each.name}") for content in contents])[0][1]
            found[arm] = min(cosine, found.get(arm, 1.0))
    return found
