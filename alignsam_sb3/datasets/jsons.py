"""Reading JSON files that annotation tools write."""

import json
from pathlib import Path
from typing import Any


def read_json(path: Path, encoding: str | None = None) -> Any:  # noqa: ANN401 (what the file holds)
    """Read a JSON file: UTF-8 with or without a byte order mark, or UTF-16 with one.

    :param encoding: of a file that is neither
    :raises ValueError: it is no JSON, or in another encoding
    """
    content = path.read_bytes()
    if encoding is None:
        encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return json.loads(content.decode(encoding))
    except UnicodeDecodeError as error:
        raise ValueError(f"the file is not UTF-8: give its encoding (encoding='gb18030', 'cp1252', ...): {error}") from error
    except RecursionError:
        raise ValueError("the file is nested too deeply") from None
