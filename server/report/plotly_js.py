"""Plotly's JavaScript as a page can carry it: compressed, and with the hash by which the page lets it run."""

import base64
import gzip
import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from task.errors import UserError

_LEVEL = 6  # gzip's; 9 takes a third longer and saves 0.2 %


@dataclass(frozen=True)
class PackedScript:
    """A script that a page inflates and runs.

    Attributes:
        packed: gzip in base64.
        source: the hash of the text for a Content-Security-Policy, `sha256-...`.
    """

    packed: str
    source: str


def pack_plotly() -> PackedScript:
    """The library that the installed plotly package brings along; importing that package would take longer.

    Raises:
        UserError: the package is not whole.
    """
    spec = find_spec("plotly")
    places = list(spec.submodule_search_locations or ()) if spec else []
    files = [Path(place) / "package_data" / "plotly.min.js" for place in places]
    for file in files:
        if file.is_file():
            text = file.read_bytes()
            packed = gzip.compress(text, _LEVEL, mtime=0)  # equal pages for equal runs
            return PackedScript(base64.b64encode(packed).decode(), hash_source(text))
    raise UserError(
        "plotly.min.js of the package plotly is missing: install plotly again (pip install --force-reinstall plotly)"
    )


def hash_source(text: bytes) -> str:
    """What a Content-Security-Policy calls an inline script or style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text).digest()).decode()
