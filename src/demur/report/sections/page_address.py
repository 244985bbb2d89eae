"""Addresses inside the page: the part after `#` that selects completions. `assets/completions.js` reads them.

The words are those of the page's menus, so that a person can write such an address, too.
"""

from urllib.parse import urlencode

from demur.report.cell_view import Entry


def cell_address(entry: Entry) -> str:
    """The address that shows the completions of a cell.

    Args:
        entry: the cell.

    Returns:
        An address such as `target=after&instructions=harmful&edit=ablate+before`.
    """
    return urlencode({"target": entry.target, "instructions": entry.instructions, "edit": entry.edit})
