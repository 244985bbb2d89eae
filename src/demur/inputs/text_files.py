"""The text of a file, whatever its encoding, and a sentence for files that hold no text.

UTF-8 is read with and without a byte order mark. UTF-16 and UTF-32 are read if the file begins with their mark, as files
that Excel and PowerShell write do. No other encoding is guessed, because a wrong guess changes letters without a sign.
"""

import codecs
import re
from pathlib import Path

from demur.core.errors import InputError, short

# UTF-32 comes first, because its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_SAVE_AS_CSV = "save it as CSV UTF-8"
_ENDINGS = {
    ".xlsx": f"an Excel workbook; {_SAVE_AS_CSV}",
    ".xlsm": f"an Excel workbook; {_SAVE_AS_CSV}",
    ".xls": f"an Excel workbook; {_SAVE_AS_CSV}",
    ".ods": f"a spreadsheet; {_SAVE_AS_CSV}",
    ".numbers": f"a spreadsheet; {_SAVE_AS_CSV}",
    ".gz": "a compressed file; unpack it with gunzip",
    ".zip": "a compressed archive; unpack it",
    ".arrow": "an Arrow file; write it as .parquet, with datasets' to_parquet or pyarrow",
    ".feather": "an Arrow file; write it as .parquet, with pandas' to_parquet",
    ".pkl": "a Python pickle, which is never opened because it can run code; write it as .jsonl or .csv",
}
_CONTENTS = (
    (b"PK\x03\x04", f"is an Excel workbook or another zip archive; if it is a workbook, {_SAVE_AS_CSV}"),
    (b"\xd0\xcf\x11\xe0", f"is an Excel workbook; {_SAVE_AS_CSV}"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it with gunzip"),
    (b"PAR1", "is a Parquet file; rename it to end with .parquet"),
)
_POINTER = b"version https://git-lfs"
_WEB_PAGE = re.compile(rb"\s*<(?:!doctype html|html|head)\b", re.IGNORECASE)


def ending_of_another_kind(suffix: str) -> str | None:
    """What a file with this ending is and what to do with it; None for an ending that is not known."""
    return _ENDINGS.get(suffix)


def refuse_other_content(start: bytes, path: Path) -> None:
    """Refuse a file whose first bytes show that it is not what its ending says.

    Raises:
        InputError: for a workbook, an archive, a Parquet file, a pointer of Git LFS and a web page.
    """
    for mark, kind in _CONTENTS:
        if start.startswith(mark):
            raise InputError(f"{str(path)!r} {kind}")
    refuse_stand_in(start, path)


def refuse_stand_in(start: bytes, path: Path) -> None:
    """Refuse a file whose first bytes show that a download gave something in place of the file.

    Raises:
        InputError: for a pointer of Git LFS and for a web page.
    """
    if start.startswith(_POINTER):
        raise InputError(f"{str(path)!r} is a pointer of Git LFS, not the file itself; fetch the file with git lfs pull")
    if _WEB_PAGE.match(start):
        raise InputError(f"{str(path)!r} is a web page, not the file that it shows; download the raw file")


def read_text(path: Path) -> str:
    """The text of a file, without a byte order mark. Line ends stay as they are.

    Raises:
        InputError: for content that is not text, and for text in an encoding that the file does not state.
    """
    content = path.read_bytes()
    refuse_other_content(content[:200], path)
    codec = next((codec for mark, codec in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(codec)
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} cannot be read as {codec.removesuffix('-sig').upper()}: {_where(error)}") from error
    if text[:200].count("\x00") * 4 > len(text[:200]):
        raise InputError(f"{str(path)!r} is UTF-16 without a byte order mark; save it as UTF-8 (every second byte is a NUL byte)")
    return text


def _where(error: UnicodeDecodeError) -> str:
    """The first byte that does not fit, and its line as it reads in the encoding that Excel writes on Windows."""
    content, place = error.object, error.start
    number = content.count(b"\n", 0, place) + 1
    begin, end = content.rfind(b"\n", 0, place) + 1, content.find(b"\n", place)
    line = content[begin : end if end >= 0 else None].strip()
    found = f"line {number} holds the byte 0x{content[place]:02x}"
    try:
        guess = line.decode("cp1252")
    except UnicodeDecodeError:
        return f"{found}; save the file as UTF-8"
    return f"{found}; in Windows-1252, which Excel may write, this line is {short(guess)!r}; save the file as UTF-8"
