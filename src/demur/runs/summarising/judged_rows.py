"""The completions that a report shows."""

from collections.abc import Collection, Iterable

from demur.runs.rows import StoredCompletion, StoredFailure, StoredVerdict
from demur.runs.stored_records import Results


def judged_rows(
    results: Results, judges: Collection[str], shown: Collection[str], completions: Iterable[StoredCompletion]
) -> list[StoredCompletion]:
    """The completions that some judge was asked about. Those that are stored but not judged yet are left out.

    Args:
        results: the verdicts and failures of the run.
        judges: the judges that count.
        shown: the keys of the cells with a verdict of some judge. A completion on which every judge failed is shown if its cell
            is one of them.
        completions: the stored completions, of an unfinished run perhaps.

    Returns:
        Those that are shown, in their order.
    """
    answers: list[StoredVerdict | StoredFailure] = [*results.verdicts, *results.failures]
    read = {(one.cell, one.position) for one in answers if one.judge in judges and one.cell in shown}
    return [row for row in completions if (row.cell, row.position) in read]
