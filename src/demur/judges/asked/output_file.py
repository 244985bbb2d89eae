"""A memory of model outputs in a file, so that judging a file of completions goes on where it stopped.

Each output is one line of JSON and is on the disk before the next one is waited for, so a kill loses only what was on its way.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from demur.core.atomic_files import cannot_write
from demur.core.errors import InputError
from demur.judges.asked.model_outputs import ModelOutput, OutputsInMemory


class OutputFile(OutputsInMemory):
    """An `OutputMemory` that is also a file of JSON lines. The file is made when the first output is kept.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        """Read what the file has.

        Args:
            path: the file; it need not exist.

        Raises:
            InputError: if the file cannot be read, or if a line of it is no output.
        """
        super().__init__()
        self.path = path
        try:
            data = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise InputError(f"the file of outputs {str(path)!r} cannot be read: {error.strerror}") from error
        # What comes after the last end of a line was being written when a process was killed. The next output replaces it.
        whole = data.rfind(b"\n") + 1
        self._cut = whole if whole < len(data) else None
        super().keep(self._read(number, line) for number, line in enumerate(data[:whole].split(b"\n")[:-1], 1))

    def _read(self, number: int, line: bytes) -> ModelOutput:
        try:
            return ModelOutput(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"line {number} of {str(self.path)!r} is not an output of a judge's model, which demur keeps there; remove the "
                "file, or give --out another name"
            ) from error

    def keep(self, outputs: Iterable[ModelOutput]) -> None:
        """Keep outputs, here and on the disk.

        Raises:
            InputError: if the file cannot be written.
            WorkError: if the disk is full.
        """
        new = list(outputs)
        if not new:
            return
        data = "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in new).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._cut is not None:
                os.truncate(self.path, self._cut)
            with self.path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._cut = None
        super().keep(new)
