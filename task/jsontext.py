"""JSON out of files and options that others may have made or damaged."""

import json
from typing import Any

MAX_DEPTH = 64  # a nested Keras model adds some ten levels; everything else has fewer


def read_object(content: bytes) -> dict[str, Any]:
    """The object that a JSON document is.

    Args:
        content: the document, in one of JSON's encodings.

    Raises:
        ValueError: it is damaged, nested more than MAX_DEPTH deep, something else than an object, or holds half of a
            character, which no file can be written with.
    """
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("it is no object, {...}")
    if _depth(value) > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    if b"\\ud" in content.lower():
        json.dumps(value, ensure_ascii=False).encode()
    return value


def escaped(text: str) -> str:
    """A JSON document with everything that cannot be printed written as an escape, which says the same."""
    lines = text.split("\n")
    return "\n".join(
        line if line.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)
        for line in lines
    )


def value_of(text: str) -> Any:
    """What the user means by an option's value: JSON, such as a number, or else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, thousands of brackets
        return text


def _depth(node: Any) -> int:
    depth, level = 0, [node]
    while level:
        depth += 1
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
    return depth
