"""Stores verdicts and failures of judges, and what the models of judges answered."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence

from demur.judges.asked.model_outputs import ModelOutput
from demur.judges.judge import Failure, Verdict
from demur.runs.database.damage import read_from_rows
from demur.runs.growing.growing_store import GrowingStore
from demur.runs.rows import ServedModel, StoredFailure, StoredVerdict, Unjudged

_COLUMNS = "key, judge, model, output, input_tokens, output_tokens, cost"


class JudgeStore(GrowingStore):
    """The tables of judges. It is an `OutputMemory`."""

    def unjudged(self, judge: str) -> list[Unjudged]:
        """Completions that have no verdict of this judge, including those on which it failed."""
        rows = self._rows(
            "SELECT c.cell, c.position, c.instruction, c.completion, c.own_turn FROM completions c LEFT JOIN verdicts v "
            "ON v.cell = c.cell AND v.position = c.position AND v.judge = ? WHERE v.cell IS NULL",
            (judge,),
        )
        return [Unjudged(*row) for row in rows]

    def add_answers(self, judge: str, answers: Iterable[tuple[str, int, Verdict | Failure]]) -> None:
        """Store a judge's answers in one transaction: verdicts, and failures in a table of their own.

        Args:
            judge: the name by which the run calls the judge.
            answers: (cell, position, answer).
        """
        verdicts, failures, outputs = [], [], []
        for cell, position, answer in answers:
            if isinstance(answer, Verdict):
                verdicts.append((cell, position, judge, int(answer.refusal), answer.label, answer.evidence))
                outputs += [] if answer.output is None else [(cell, position, judge, answer.output.key)]
            else:
                failures.append((cell, position, judge, answer.reason))
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?)", verdicts)
            db.executemany("INSERT OR REPLACE INTO verdict_outputs VALUES (?, ?, ?, ?)", outputs)
            db.executemany(
                "DELETE FROM judge_failures WHERE (cell, position, judge) = (?, ?, ?)", [verdict[:3] for verdict in verdicts]
            )
            db.executemany("INSERT OR REPLACE INTO judge_failures VALUES (?, ?, ?, ?)", failures)

    def take_answers(self, source: "JudgeStore", judge: str, cells: Collection[str]) -> int:
        """Copy a judge's verdicts on some cells from another folder, and all outputs of its model. What is here already stays.

        Args:
            source: the other folder.
            judge: the name by which both runs call the judge.
            cells: keys of the cells.

        Returns:
            The number of verdicts of the other folder on these cells.
        """

        def of_cells(table: str) -> list[tuple[object, ...]]:
            return [row for row in source._rows(f"SELECT * FROM {table} WHERE judge = ?", (judge,)) if row[0] in cells]

        verdicts, keys = of_cells("verdicts"), of_cells("verdict_outputs")
        outputs = source._rows(f"SELECT {_COLUMNS} FROM judge_outputs WHERE judge = ? ORDER BY rowid", (judge,))
        with self._transaction() as db:
            db.executemany("INSERT OR IGNORE INTO judge_outputs VALUES (?, ?, ?, ?, ?, ?, ?)", outputs)
            # The output of a verdict that is here already is not the other folder's.
            new = {row[:3] for row in verdicts} - {row[:3] for row in db.execute("SELECT cell, position, judge FROM verdicts")}
            db.executemany("INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?)", [row for row in verdicts if row[:3] in new])
            db.executemany("INSERT INTO verdict_outputs VALUES (?, ?, ?, ?)", [row for row in keys if row[:3] in new])
            gone = "DELETE FROM judge_failures WHERE (cell, position, judge) = (?, ?, ?)"
            db.executemany(gone, sorted(new, key=str))
        return len(verdicts)

    def forget_judge(self, judge: str) -> None:
        """Remove all verdicts and failures of one judge, so that it judges every completion again. Outputs of its model stay."""
        with self._transaction() as db:
            db.execute("DELETE FROM verdicts WHERE judge = ?", (judge,))
            db.execute("DELETE FROM judge_failures WHERE judge = ?", (judge,))
            db.execute("DELETE FROM verdict_outputs WHERE judge = ?", (judge,))

    @read_from_rows
    def verdicts(self) -> list[StoredVerdict]:
        """All verdicts, by cell, position and judge."""
        rows = self._rows("SELECT cell, position, judge, refusal, label, evidence FROM verdicts ORDER BY cell, position, judge")
        return [
            StoredVerdict(cell, position, judge, bool(refusal), label, why) for cell, position, judge, refusal, label, why in rows
        ]

    def failures(self) -> list[StoredFailure]:
        """All completions on which a judge failed, by cell, position and judge."""
        rows = self._rows("SELECT cell, position, judge, reason FROM judge_failures ORDER BY cell, position, judge")
        return [StoredFailure(*row) for row in rows]

    def served(self, judge: str) -> str | None:
        """The model that answered this judge last; None if none has."""
        rows = self._rows("SELECT model FROM judge_outputs WHERE judge = ? ORDER BY rowid DESC LIMIT 1", (judge,))
        return str(rows[0][0]) if rows else None

    def known(self, keys: Sequence[str]) -> Mapping[str, ModelOutput]:
        """Those of the outputs with these keys that are stored."""
        # One text in place of one mark for each key, because SQLite limits the number of marks.
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM judge_outputs WHERE key IN (SELECT value FROM json_each(?))", (json.dumps(list(keys)),)
        )
        return {row[0]: ModelOutput(*row) for row in rows}

    def keep(self, outputs: Iterable[ModelOutput]) -> None:
        """Store outputs in one transaction."""
        rows = [(one.key, one.judge, one.model, one.text, one.input_tokens, one.output_tokens, one.cost) for one in outputs]
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO judge_outputs VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def cost(self, judge: str) -> float:
        """What all stored outputs of a judge cost together."""
        return float(self._rows("SELECT coalesce(sum(cost), 0) FROM judge_outputs WHERE judge = ?", (judge,))[0][0])

    def served_models(self) -> list[ServedModel]:
        """Every model that answered a judge, in the order in which they first answered."""
        rows = self._rows(
            "SELECT judge, model, count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), sum(cost) "
            "FROM judge_outputs GROUP BY judge, model ORDER BY min(rowid)"
        )
        return [ServedModel(*row) for row in rows]

    def outputs(self) -> dict[tuple[str, int, str], str]:
        """(cell, position, judge) -> what the judge's model answered, word for word, for judges that ask one."""
        rows = self._rows(
            "SELECT v.cell, v.position, v.judge, o.output FROM verdict_outputs v JOIN judge_outputs o ON o.key = v.output"
        )
        return {(cell, position, judge): output for cell, position, judge, output in rows}
