"""Whether a run folder is on a network file system, where only one host at a time may open the SQLite file of a run."""

import os
from pathlib import Path

NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "panfs", "wekafs", "fuse.sshfs")
"""How the types of network file systems begin in Linux's table of mounts."""


def network_file_system(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of the network file system that holds a folder.

    Args:
        folder: the folder; it need not exist.
        mounts: Linux's table of mounts.

    Returns:
        The type, such as `nfs4`; None for a local disk, and where the system does not tell.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found, longest = None, -1
    where = os.path.realpath(folder)
    for line in lines:
        # Fields in front of the dash: id, parent, device, root, mount point, ...; behind it: the type.
        before, _, behind = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not behind:
            continue
        # The table writes a space as \040.
        point = fields[4].replace("\\040", " ")
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:
            found, longest = behind.split()[0], len(point)
    return found if found is not None and found.startswith(NETWORK) else None


def network_note(folder: Path) -> str | None:
    """What a user should know of a run folder on a network file system; None for a local disk."""
    kind = network_file_system(folder)
    if kind is None:
        return None
    return (
        f"{str(folder)!r} is on a network file system ({kind}), on which SQLite works from one host only: open this run on no "
        "other host until it is finished"
    )
