"""This project as the bundle that Flower's own SuperNodes fetch and run."""

from pathlib import Path

from flwr.cli.build import build_fab_from_files
from flwr.supercore.fab import Fab

from task.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("client", "task")


def build_bundle() -> Fab:
    """The client's half of the project; nothing else is anyone's business.

    Raises:
        UserError: this is no checkout of the project.
    """
    configuration = ROOT / "pyproject.toml"
    if not configuration.exists():
        raise UserError(f"{configuration} is missing; run the server from a checkout of the project")
    files = {"pyproject.toml": configuration}
    for package in _PACKAGES:
        files |= {str(path.relative_to(ROOT)): path for path in sorted((ROOT / package).rglob("*.py"))}
    content, _ = build_fab_from_files(files)
    return Fab(hash_str="", content=content, verifications={})
