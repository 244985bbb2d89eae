"""The files of directions in a run folder. They are copies of what the SQLite file holds, for other programs."""

from pathlib import Path

from demur.core.atomic_files import replace_file
from demur.core.inner_files import inner_file, is_file_stem
from demur.runs.database.damage import FILE, damaged


def write_direction(folder: Path, name: object, content: object) -> None:
    """Write the file of a direction, unless it is there already.

    Args:
        folder: the run folder.
        name: the direction's name, as it is stored.
        content: the bytes of its file, as they are stored.

    Raises:
        InputError: if a sender of the folder stored another kind of value, or if an entry of the folder leads out of it.
    """
    if not is_file_stem(name) or not isinstance(content, bytes):
        raise damaged(folder / FILE, "a direction in it has no name or no file")
    path = inner_file(folder, f"directions/{name}.safetensors")
    # The sizes are compared first: the file may be as large as its sender likes.
    if not path.is_file() or path.stat().st_size != len(content) or path.read_bytes() != content:
        replace_file(path, content)
