"""The code that workers on other machines run: this project's, and the user's own model's, as one zip.

Python files and nothing else: no data leaves the machine by it.
"""

import hashlib
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("client", "server", "strategies", "task")
_SAME_DATE = (1980, 1, 1, 0, 0, 0)  # equal code is an equal zip, which a cluster keeps


def pack(model: str, file: Path) -> None:
    """Write the zip.

    Args:
        model: as `--model` names it; of an own one the Python files and packages beside its module come along.
        file: the zip.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for name, source in sorted((_own_code(model) | _project()).items()):  # the project's names win, as they do here
            target.writestr(zipfile.ZipInfo(name, _SAME_DATE), source.read_bytes())


def fingerprint() -> str:
    """A short hash of the project's code that this process runs."""
    total = hashlib.sha256()
    for name, source in sorted(_project().items()):
        total.update(f"{name}\0".encode())
        total.update(source.read_bytes())
    return total.hexdigest()[:12]


def _project() -> dict[str, Path]:
    return {str(path.relative_to(ROOT)): path for package in PACKAGES for path in _python_files(ROOT / package)}


def _own_code(model: str) -> dict[str, Path]:
    """The files beside the module of a user's model; none if it is installed, or not to be found."""
    top = model.partition(":")[0].partition(".")[0]
    spec = PathFinder.find_spec(top, [*sys.path, str(Path.cwd())]) if ":" in model else None
    if spec is None:
        return {}
    packages = list(spec.submodule_search_locations or ())
    own = Path(packages[0] if packages else str(spec.origin))
    folder = own.parent
    if any(own.is_relative_to(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "stdlib")):
        return {}
    found = [path for path in folder.glob("*.py") if path.is_file()]
    for package in {*map(Path, packages[:1]), *(path.parent for path in folder.glob("*/__init__.py"))}:
        found += _python_files(package)
    return {
        str(path.relative_to(folder)): path
        for path in found
        if path.relative_to(folder).parts[0].removesuffix(".py") not in PACKAGES
    }


def _python_files(folder: Path) -> Iterator[Path]:
    """All of a package, without what hidden folders hold."""
    for path in sorted(folder.rglob("*.py")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path
