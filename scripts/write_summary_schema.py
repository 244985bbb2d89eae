"""Writes the JSON Schema of `summary.json` that ships with the package. Run it as `python scripts/write_summary_schema.py`."""

from pathlib import Path

from demur.analysis.summary import json_schema

PLACE = Path(__file__).parents[1] / "src" / "demur" / "data" / "summary.schema.json"

if __name__ == "__main__":
    PLACE.write_text(json_schema(), encoding="utf-8")
    print(PLACE)
