"""The description of a run: its study, checkpoints, prompts, instructions, directions, judges, and where it was made."""

from pydantic import JsonValue

from demur.analysis.cell import Record
from demur.analysis.selection_record import SelectionRecord
from demur.core.edit_words import EditWords

Settings = dict[str, JsonValue]
"""A study as plain data, including every default."""


class CheckpointFacts(Record):
    """A checkpoint as it was loaded.

    `settings` is a digest of config.json and adapter_config.json. `tokenizer` says whose tokenizer an adapter was used with, and
    is None for the base's own.
    """

    model: str
    adapter: str | None = None
    role: str = ""
    source: str = ""
    fingerprint: str = ""
    d_model: int
    n_layers: int
    stop_ids: tuple[int, ...] = ()
    dtype: str = ""
    device: str = ""
    quantised: str | None = None
    revision: str | None = None
    settings: str | None = None
    tokenizer: str | None = None
    engine: str = "transformers"


class ArmFacts(Record):
    """A prompt format applied to a checkpoint: its text, the token that is read, and a hash of the token ids of all prompts."""

    checkpoint: str
    prompt: str
    template: str
    token_read: str
    token_ids_sha256: str = ""

    @property
    def name(self) -> str:
        """The arm in one word, as a plan names it: `checkpoint/prompt`."""
        return f"{self.checkpoint}/{self.prompt}"


class InstructionFacts(Record):
    """One instruction set: where it was read, and hashes of its test and training parts."""

    source: str
    split: str
    n: int
    sha256: str
    train_n: int
    train_sha256: str


class Environment(Record):
    """A kind of machine."""

    system: str
    machine: str
    cores: int | None = None


class Session(Record):
    """The versions, machine and device that made a part of the run. A run has one entry for each combination of these."""

    versions: dict[str, str]
    environment: Environment
    device: str


class DirectionFacts(Record):
    """A stored direction without its vector.

    `method` says how it was made. For a control, `null_of` says what it is a null for, and `cosine` is that with the direction it
    stands beside. In folders of earlier versions, `method` and `null_of` may be empty, and `cosine` None. `pairs_seed` is the
    seed by which its training instructions were drawn, None for the first ones of the set. `zero_at` says for each arm where zero
    lies along the direction, at its layer and site: 0 at the arm's harmless mean, 1 at its harmful mean. It has only arms whose
    means are stored, and is empty for controls. `resample_of` names the direction from all training pairs, if this one is from a
    resample of them; `cosine` is then that with it. `estimator` is empty for the study's first estimator, and for a control of
    one of its directions; `part` is the number of the direction among those of an estimator that gives several, else 0.
    """

    name: str
    method: str = ""
    source: str | None = None
    prompt: str | None = None
    control: bool = False
    control_kind: str = ""
    stands_beside: str | None = None
    null_of: str = ""
    cosine: float | None = None
    layer: int | None = None
    position: int | None = None
    pairs_seed: int | None = None
    resample_of: str | None = None
    estimator: str = ""
    part: int = 0
    site: str | None = None
    raw_norm: float | None = None
    mean_residual_norm: float | None = None
    fingerprint: str | None = None
    file: str | None = None
    zero_at: dict[str, float] = {}


class JudgeFacts(Record):
    """A judge as the run used it, so that the run can be reported where the judge is not installed.

    Attributes:
        name: the judge's name.
        version: the version of its rules; completions with verdicts of another version are judged again.
        labels: all labels that it gives, in the order of tables.
        refusal_labels: those of them that count as refusals.
        family: the family of its model, for judges that ask one; empty if it is not known.
    """

    name: str
    version: int | str = 1
    labels: tuple[str, ...] = ("refusal", "other")
    refusal_labels: tuple[str, ...] = ("refusal",)
    family: str = ""


class Manifest(Record):
    """What a run stores about itself and how it was made.

    Attributes:
        study: the study as plain data.
        created: when the run was begun, ISO 8601 in UTC.
        versions: versions of the packages that affect numbers, as last used.
        sessions: every combination of versions, machine and device that made a part of the run.
        environment: the machine that was used last.
        checkpoints: facts of each checkpoint that was loaded, by name.
        arms: facts of each arm.
        instructions: facts of each instruction set, by label.
        edits: the words for each action of the run's kinds of edit, so that the run can be reported where a kind is not
            installed. Runs of earlier versions have none; all of their kinds ship with demur.
        judges: the judges whose verdicts the run holds, in the study's order.
        added_judges: names of judges that were added after the study was run.
        warnings: what a reader of the numbers should know, in sentences.
        selection: the settings that the run selected; None for a run that selected none.
    """

    study: Settings
    created: str | None = None
    versions: dict[str, str] | None = None
    sessions: tuple[Session, ...] = ()
    environment: Environment | None = None
    checkpoints: dict[str, CheckpointFacts] = {}
    arms: tuple[ArmFacts, ...] = ()
    instructions: dict[str, InstructionFacts] = {}
    edits: dict[str, EditWords] = {}
    judges: tuple[JudgeFacts, ...] = ()
    added_judges: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    selection: SelectionRecord | None = None
