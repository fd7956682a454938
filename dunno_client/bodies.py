"""Rows, in whatever form the caller has them -> the body of a request.

Frames, arrays and pictures are known by what they can do: none of their libraries is imported
before one of its objects is here.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

_SIGNATURES = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"RIFF": "image/webp",
    b"BM": "image/bmp",
    b"\x93NUMPY": "application/x-npy",
}
"""First bytes of a file -> its media type."""

_NEEDS_RGB = ("CMYK", "HSV", "YCbCr")
"""Modes of pictures that PNG does not have."""


def body_of(rows: Any) -> dict[str, Any]:
    """Return the body of a request as arguments of `httpx.Client.request`.

    Args:
        rows: one row or a list of them: an object by name, a list in order, a text, a picture of
            Pillow or the bytes of one; or a numpy array (rows, *input), or a frame of pandas or
            polars, or a table of pyarrow, whose columns are found by their names.

    Raises:
        TypeError, ValueError: if it is none of these.
        OSError: of Pillow, if it cannot read the picture or write it as PNG.
    """
    if _is_file(rows):
        content = _content(rows)
        return _body(content, _media_type(content))
    if hasattr(type(rows), "columns"):  # asking a lazy frame itself would compute it
        return _table(*_cells(rows))
    if hasattr(rows, "to_frame") or hasattr(rows, "to_dict"):
        raise TypeError(f"rows: expected a frame, got {type(rows)}; list(series)?")
    if hasattr(rows, "__array__"):
        return _array(rows)
    if isinstance(rows, str | Mapping):
        return _json([rows])
    if not isinstance(rows, list | tuple):
        raise TypeError(f"rows: expected a list, array, frame, text or picture, got {type(rows)}")
    if rows and all(map(_is_file, rows)):
        contents = [_content(row) for row in rows]
        return {"files": [("image", ("image", each, _media_type(each))) for each in contents]}
    is_one_row = bool(rows) and all(each is None or isinstance(each, Real) for each in rows)
    return _json([rows] if is_one_row else rows)


def _is_file(row: Any) -> bool:
    return isinstance(row, bytes) or (hasattr(row, "save") and hasattr(row, "mode"))


def _content(row: Any) -> bytes:
    """Return bytes as they are and a picture as PNG, with its orientation if it has one."""
    if isinstance(row, bytes):
        return row
    stream = io.BytesIO()
    picture = row.convert("RGB") if row.mode in _NEEDS_RGB else row
    picture.save(stream, "PNG", exif=row.getexif())
    return stream.getvalue()


def _media_type(content: bytes) -> str:
    for start, media_type in _SIGNATURES.items():
        if content.startswith(start):
            return media_type
    raise ValueError(f"bytes: expected a PNG, JPEG, WebP, BMP or .npy file, got {content[:8]!r}")


def _array(rows: Any) -> dict[str, Any]:
    import numpy as np  # noqa: PLC0415  whoever has an array has it already

    try:
        array = np.asarray(rows)
    except Exception as error:
        expected = "an array that numpy can read"
        raise TypeError(f"rows: expected {expected}, got {type(rows)} ({error})") from error
    if array.dtype.names is not None:
        return _table(array.dtype.names, np.atleast_1d(array).tolist())
    if array.dtype.kind not in "uifb":
        return body_of(array.tolist())
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return _body(stream.getvalue(), "application/x-npy")


def _cells(frame: Any) -> tuple[Sequence[Any], Iterable[Sequence[Any]]]:
    """Return the names of a frame's columns, and its rows."""
    if hasattr(frame, "itertuples"):  # of pandas
        return frame.columns, frame.itertuples(index=False, name=None)
    if hasattr(frame, "iter_rows"):  # of polars
        return frame.columns, frame.iter_rows()
    if hasattr(frame, "to_pydict"):  # of pyarrow
        columns = (column.to_pylist() for column in frame.columns)
        return frame.schema.names, zip(*columns, strict=True)
    expected = "a frame of pandas or polars, or a table of pyarrow, in memory"
    raise TypeError(f"rows: expected {expected}, got {type(frame)}; collect it first?")


def _table(names: Sequence[Any], rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """Return rows as CSV: the server finds columns by their names, and passes others over."""
    header = [str(name) for name in names]
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"rows: expected columns of different names, got two called {twice!r}")
    stream = io.StringIO()
    # In quotes a name shows no separator.
    csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(header)
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return _body(stream.getvalue().encode(), "text/csv")


def _json(rows: Any) -> dict[str, Any]:
    return _body(json.dumps({"instances": rows}, default=_plain).encode(), "application/json")


def _plain(value: Any) -> Any:
    """Return a number or an array of numpy as Python has it."""
    if isinstance(value, Mapping):
        return dict(value)
    if not hasattr(value, "tolist"):
        raise TypeError(f"rows: expected numbers, texts, lists and objects, got {type(value)}")
    return value.tolist()


def _body(content: bytes, media_type: str) -> dict[str, Any]:
    return {"content": content, "headers": {"Content-Type": media_type}}
