"""Versions of the packages on which results depend."""

from importlib.metadata import version


def versions() -> dict[str, str]:
    """The versions of demur, torch and transformers, by package."""
    return {package: version(package) for package in ("demur", "torch", "transformers")}
