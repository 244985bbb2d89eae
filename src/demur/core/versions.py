"""Versions of the packages that decide about numbers."""

from importlib.metadata import version


def versions() -> dict[str, str]:
    """Versions that decide about numbers."""
    return {package: version(package) for package in ("demur", "torch", "transformers")}
