"""Stores the description of a run: one entry per fact in the table `meta`, read as one typed `Manifest`.

Run folders of earlier versions have the same entries except the labels of judges, which are filled in when they are read.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from pydantic import JsonValue

from demur.analysis.manifest import (
    CheckpointFacts,
    InstructionFacts,
    JudgeFacts,
    Manifest,
    Session,
    Settings,
)
from demur.analysis.selection_record import SelectionRecord
from demur.core.edit_words import EditWords
from demur.core.errors import InputError
from demur.judges.judge import get_judge
from demur.runs.database.damage import read_from_rows
from demur.runs.schema import Connected

_ENTRIES = {"study": "study_facts", "added_judges": "added judges", "judges": "judge_facts"}
"""Fields of `Manifest` whose entry has another name than the field. The entry `study` holds the study's digest."""


class ManifestStore(Connected):
    """The entries of a run. Each `remember_...` writes one of them; `manifest` reads them all."""

    def remember(self, key: str, value: JsonValue) -> None:
        """Write one entry.

        Args:
            key: the entry's name.
            value: plain data.
        """
        self.remember_all({key: value})

    def remember_all(self, entries: Mapping[str, JsonValue]) -> None:
        """Write or replace several entries in one transaction."""
        with self._transaction() as db:
            put(db, entries)

    @read_from_rows
    def recall(self, key: str, default: JsonValue = None) -> JsonValue:
        """Read one entry as plain data; `manifest` gives all of them with types.

        Args:
            key: the entry's name.
            default: what to give if there is no such entry.

        Returns:
            The value, or the default.
        """
        rows = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        found: JsonValue = json.loads(rows[0][0]) if rows else default
        return found

    @read_from_rows
    def entries(self) -> dict[str, JsonValue]:
        """All entries as plain data."""
        return {key: json.loads(value) for key, value in self._rows("SELECT key, value FROM meta")}

    def forget(self, key: str) -> None:
        """Remove one entry."""
        with self._transaction() as db:
            db.execute("DELETE FROM meta WHERE key = ?", (key,))

    @property
    def digest(self) -> str | None:
        """The digest of the run's study."""
        found = self.recall("study")
        return None if found is None else str(found)

    @property
    def begun(self) -> bool:
        """Whether the run has stored its study; before that there is nothing to read."""
        return self.recall(_ENTRIES["study"]) is not None

    def _not_begun(self) -> InputError:
        return InputError(f"the run in {str(self.folder)!r} stopped before it stored anything; run its study again")

    @read_from_rows
    def manifest(self) -> Manifest:
        """The whole description of the run, read in one query.

        Raises:
            InputError: if the run has not stored its study yet.
        """
        entries = self.entries()
        if entries.get(_ENTRIES["study"]) is None:
            raise self._not_begun()
        found = {field: entries.get(_ENTRIES.get(field, field)) for field in Manifest.model_fields}
        known = {field: value for field, value in found.items() if value is not None}
        manifest = Manifest.model_validate({**known, "judges": ()})
        return manifest.model_copy(update={**_in_order(manifest), "judges": self._judges(entries, manifest)})

    def _judges(self, entries: Mapping[str, JsonValue], manifest: Manifest) -> tuple[JudgeFacts, ...]:
        """The facts of the judges that gave verdicts, in the order of the study's judges, then of those that were added."""
        stored = entries.get(_ENTRIES["judges"])
        facts = {name: JudgeFacts.model_validate(each) for name, each in (stored if isinstance(stored, dict) else {}).items()}
        # Runs made before schema 4 have versions of judges but no labels.
        versions = entries.get("judge_versions")
        for name, version in (versions if isinstance(versions, dict) else {}).items():
            if name not in facts and isinstance(version, int | str):
                facts[name] = self._unlabelled(name, version)
        names = manifest.study.get("judges")
        order = [*(names if isinstance(names, list) else ()), *manifest.added_judges]
        return tuple(facts[name] for name in sorted(facts, key=lambda name: order.index(name) if name in order else len(order)))

    def _unlabelled(self, name: str, version: int | str) -> JudgeFacts:
        """A judge whose labels were not stored. They come from the judge, or from its verdicts if it is not installed."""
        try:
            judge = get_judge(name)
        except InputError:
            rows = self._rows(
                "SELECT DISTINCT label, refusal FROM verdicts WHERE judge = ? ORDER BY refusal DESC, label", (name,)
            )
            refusals = tuple(label for label, refusal in rows if refusal)
            return JudgeFacts(name=name, version=version, labels=tuple(label for label, _ in rows), refusal_labels=refusals)
        return JudgeFacts(name=name, version=version, labels=judge.labels, refusal_labels=judge.refusal_labels)

    def remember_study(self, study: Settings) -> None:
        """Write down the study as plain data, every default written out."""
        self.remember(_ENTRIES["study"], study)

    def remember_selection(self, selection: SelectionRecord) -> None:
        """Write down the settings that were selected, and all measures."""
        self.remember("selection", selection.model_dump(mode="json"))

    def selection(self) -> SelectionRecord | None:
        """What was selected; None where nothing was."""
        found = self.recall("selection")
        return None if found is None else SelectionRecord.model_validate(found)

    def remember_created(self, moment: str) -> None:
        """Write down when the run was begun, unless an earlier session did."""
        if self.recall("created") is None:
            self.remember("created", moment)

    def remember_instructions(self, instructions: Mapping[str, InstructionFacts]) -> None:
        """Write down the instruction sets by label."""
        self.remember("instructions", {label: facts.model_dump(mode="json") for label, facts in instructions.items()})

    def remember_edits(self, words: Mapping[str, EditWords]) -> None:
        """Write down the words for each action of the run's kinds of edit."""
        self.remember("edits", {action: each.model_dump(mode="json") for action, each in words.items()})

    def remember_checkpoint(self, name: str, facts: CheckpointFacts) -> None:
        """Write down one checkpoint as it was loaded."""
        self.remember("checkpoints", {**self._table("checkpoints"), name: facts.model_dump(mode="json")})

    def remember_session(self, session: Session) -> None:
        """Write down versions, machine and device of this part of the work, once for each combination."""
        sessions = self._listed("sessions")
        now = session.model_dump(mode="json")
        if now not in sessions:
            self.remember("sessions", [*sessions, now])
        self.remember("versions", now["versions"])
        self.remember("environment", now["environment"])

    def remember_judge(self, facts: JudgeFacts) -> None:
        """Write down a judge whose verdicts are about to be stored."""
        entry = _ENTRIES["judges"]
        self.remember(entry, {**self._table(entry), facts.name: facts.model_dump(mode="json")})

    def remember_judge_specs(self, specs: Mapping[str, JsonValue]) -> None:
        """Write down what describes judges that files describe, by their names. They hold no secrets."""
        if specs:
            self.remember("judge_specs", {**self._table("judge_specs"), **specs})

    def judge_spec(self, name: str) -> dict[str, JsonValue] | None:
        """The stored spec of a judge; None if no file described it."""
        found = self._table("judge_specs").get(name)
        return found if isinstance(found, dict) else None

    def remember_added_judges(self, names: Sequence[str]) -> None:
        """Write down judges that were added after the study was run."""
        entry = _ENTRIES["added_judges"]
        known = self._listed(entry)
        self.remember(entry, [*known, *(name for name in dict.fromkeys(names) if name not in known)])

    def remember_asked(self, measurements: Iterable[tuple[str, str]], *, added: bool = False) -> None:
        """Write down what is to be measured. A summary leaves out records of other measurements.

        Args:
            measurements: name and canonical settings of each.
            added: whether they were asked for in addition to those of the study. Added ones are kept; those of the study are
                replaced.
        """
        known = self._listed("added_measurements") if added else []
        new: list[JsonValue] = [list(one) for one in measurements]
        self.remember(
            "added_measurements" if added else "asked_measurements", [*known, *(one for one in new if one not in known)]
        )

    def asked_measurements(self) -> set[tuple[str, str]] | None:
        """Name and canonical settings of what the study asks for and of what was added; None in folders of earlier versions."""
        if self.recall("asked_measurements") is None:
            return None
        both = [*self._listed("asked_measurements"), *self._listed("added_measurements")]
        return {(str(one[0]), str(one[1])) for one in both if isinstance(one, list)}

    def _listed(self, key: str) -> list[JsonValue]:
        stored = self.recall(key)
        return stored if isinstance(stored, list) else []

    def _table(self, key: str) -> dict[str, JsonValue]:
        stored = self.recall(key)
        return stored if isinstance(stored, dict) else {}

    def warn_of_plan(self, sentences: Sequence[str]) -> None:
        """Write down the warnings of the plan in place of those of an earlier plan, which a larger or mended study may have had.

        Args:
            sentences: whole sentences.
        """
        before = self._listed("plan_warnings")
        kept = [sentence for sentence in self._listed("warnings") if sentence not in before]
        new = [sentence for sentence in sentences if sentence not in kept]
        self.remember_all({"warnings": [*kept, *new], "plan_warnings": list(sentences)})

    def warn(self, sentences: Iterable[str]) -> None:
        """Write down warnings for readers of the numbers, each sentence once.

        Args:
            sentences: whole sentences.
        """
        known = self._listed("warnings")
        new = [sentence for sentence in sentences if sentence not in known]
        if new:
            self.remember("warnings", [*known, *new])


def put(db: sqlite3.Connection, entries: Mapping[str, JsonValue]) -> None:
    """Write or replace entries, in a transaction that is open."""
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(key, json.dumps(value)) for key, value in entries.items()])


def _in_order(manifest: Manifest) -> dict[str, object]:
    """Checkpoints and arms in the order of the study, whichever was loaded first."""
    names = manifest.study.get("checkpoints")
    places = {name: place for place, name in enumerate(names if isinstance(names, dict) else ())}
    checkpoints = sorted(manifest.checkpoints.items(), key=lambda item: places.get(item[0], len(places)))
    arms = sorted(manifest.arms, key=lambda arm: places.get(arm.checkpoint, len(places)))
    return {"checkpoints": dict(checkpoints), "arms": tuple(arms)}
