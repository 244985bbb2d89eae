"""The criteria by which `demur select` chooses a place. Imports nothing heavy, so that help and completion can list them."""

PLACE_CRITERIA = ("arditi", "cosmic", "separation")
"""Criteria that choose a place for each arm, and do not look at the edits of the study."""

FRONT = "front"
"""The criterion that tries every edit of a study with every direction of the same arm, and chooses the cleanest edit."""

CRITERIA = ("effect", FRONT, *PLACE_CRITERIA)
"""All criteria, the default first."""
