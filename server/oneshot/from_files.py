"""Combine finished `.keras` files: check what the user gave, load, combine, write, tell."""

import gc
import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from server.files import writing
from server.machine import versions
from server.oneshot.folder import AGAIN, OneShotFolder
from server.record import __version__
from server.screen import open_screen
from server.stop import Broken
from task.arrays import scale_of, to_input
from task.backend import load
from task.chatter import Chatter, console_on
from task.errors import UserError
from task.shardfile import PUBLIC, TEST, read_raw, read_raw_public
from task.system_limits import check_limits
from task.update import Update

if TYPE_CHECKING:
    from server.oneshot.combination import Combination, Material
    from server.screen import Screen

TITLE = "Finished models, combined once"
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Order:
    """What the user asked for; see `python -m server.oneshot --help`.

    Attributes:
        files: the finished models.
        test: the file with the test set, or a folder that holds test.npz.
        public: the file with unlabelled examples, or a folder that holds public.npz; None: there are none.
        base: the common start; None: there is none.
        examples: of each model, or one number for all; None: nobody knows.
        norms: FedNova's a_i, in the same way; None: nobody knows.
        seed: for restarts and mini-batches.
    """

    files: tuple[Path, ...]
    test: Path
    public: Path | None = None
    base: Path | None = None
    examples: tuple[int, ...] | None = None
    norms: tuple[float, ...] | None = None
    seed: int = 0


def combine_files(order: Order, folder: Path, *, quiet: bool, verbose: bool, command: list[str]) -> int:
    """Combine finished models.

    Args:
        order: which, and what they are judged on.
        folder: where the results go.
        quiet: show failures only.
        verbose: show what TensorFlow says, too.
        command: how the user called, for run.json.

    Returns:
        The exit status: 0.

    Raises:
        UserError: for everything that only the user can mend.
    """
    _check(order)
    check_limits()
    with ExitStack() as stack:
        chatter = stack.enter_context(Chatter(verbose=verbose))
        console = console_on(chatter, live=not verbose)
        screen = open_screen(quiet, console, chatter.err)
        stack.callback(screen.close)
        results = stack.enter_context(OneShotFolder.create(folder))
        chatter.redirect(results.log_path)
        try:
            material = read_material(order, screen.step)
            run = _facts(order, material, command)
            results.write_run(run)
            combination = _combine(material, results, screen, command)
        except Broken:
            raise  # what is there is kept
        except (UserError, KeyboardInterrupt):
            results.discard()
            raise
        results.write_run(run | _outcome(combination))
        screen.close()
        if not quiet:
            from server.oneshot.table import summary_table

            console.print(summary_table([combination]), highlight=False)
            console.print(f"Results: {folder} (open report.html)", highlight=False, soft_wrap=True)
    return 0


def _check(order: Order) -> tuple[tuple[int, ...] | None, tuple[float, ...] | None]:
    """Examples and norms, one for each model."""
    if len(order.files) < 2:
        raise UserError(f"{len(order.files)} model file given; give two or more of one architecture")
    for file in (*order.files, *([order.base] if order.base else [])):
        if not file.exists():  # TensorFlow takes seconds to start
            raise UserError(f"{file}: no such file; check the path")
    resolved = [file.resolve() for file in order.files]
    for file, path in zip(order.files, resolved, strict=True):
        if resolved.count(path) > 1:
            raise UserError(f"{file} is given twice, which would count its model twice; give each file once")
    examples = _for_each(order.examples, "--examples", len(order.files))
    return examples, _for_each(order.norms, "--steps or --norms", len(order.files))


def _for_each(values: tuple[Any, ...] | None, option: str, models: int) -> tuple[Any, ...] | None:
    if values is None or len(values) == models:
        return values
    if len(values) == 1:
        return values * models
    raise UserError(f"{option} has {len(values)} numbers for {models} model files; give one for each, or one for all")


def read_material(order: Order, step: Callable[[str], None] = lambda _: None) -> "Material":
    """Everything that is combined and judged on, checked to fit.

    Args:
        order: what the user asked for.
        step: told what begins.

    Raises:
        UserError: for everything that only the user can mend.
    """
    examples, norms = _check(order)
    step("reading the examples")
    x, y, scale = _read_test(order.test)
    public = None if order.public is None else _read_public(order.public, scale)
    step("starting TensorFlow")
    load()

    from server.oneshot.combination import Material
    from server.oneshot.keras_files import load_models
    from task.evaluation import resident
    from task.units import structure_of

    gc.freeze()  # what was imported stays
    gc.enable()
    step(f"reading {len(order.files)} models")
    base = [] if order.base is None else [order.base]
    model, arrays = load_models([*order.files, *base])
    _check_fit(model, order, x, y, public)
    return Material(
        model=model,
        structure=structure_of(model),
        locals=tuple(
            Update(arrays[k], examples[k] if examples else 1, norms[k] if norms else None, k)
            for k in range(len(order.files))
        ),
        names=tuple(map(str, order.files)),
        base=arrays[-1] if base else None,
        test=resident(x, y),
        public=public,
        seed=order.seed,
        init="files",
    )


def _read_test(path: Path) -> tuple[Floats, NDArray[np.int32], float]:
    file = _file(path, TEST)
    x, y, header = read_raw(file)
    scale = scale_of(x, header.scale, str(file))
    return to_input(x, scale), y.astype(np.int32), scale


def _read_public(path: Path, test_scale: float) -> Floats:
    """Unlabelled examples; where the file has no scale of its own and its numbers are whole, that of the test set."""
    file = _file(path, PUBLIC)
    x, header = read_raw_public(file)
    whole = x.dtype.kind in "iu"
    scale = test_scale if header.scale is None and whole else scale_of(x, header.scale, str(file))
    return to_input(x, scale)


def _file(path: Path, name: str) -> Path:
    return path / name if path.is_dir() else path


def _check_fit(model: Any, order: Order, x: Floats, y: NDArray[np.int32], public: Floats | None) -> None:
    wanted, classes = tuple(model.inputs[0].shape[1:]), int(model.outputs[0].shape[1])
    for path, images in ((order.test, x), (order.public, public)):
        if images is not None and images.shape[1:] != wanted:
            raise UserError(
                f"{path}: examples have the shape {images.shape[1:]}, but {order.files[0]} takes {wanted}; "
                "store them as the models were trained on them"
            )
    if y.max() >= classes:
        raise UserError(
            f"{order.test}: has the label {y.max()}, but {order.files[0]} knows {classes} classes, 0..{classes - 1}; "
            "give the test set of these models"
        )


def _combine(material: "Material", results: OneShotFolder, screen: "Screen", command: list[str]) -> "Combination":
    from server.oneshot.combine import combine
    from server.oneshot.results import write_results

    if all(update.num_examples == 1 for update in material.locals):
        screen.note("without --examples every model counts the same: weighted is fedavg")
    combination = combine(material, screen.step)
    screen.step("writing the models and the report")
    with writing(results.path, AGAIN):
        write_results(results.path, [combination], command=command, title=TITLE)
    return combination


def _facts(order: Order, material: "Material", command: list[str]) -> dict[str, Any]:
    """What run.json says from the start; a number of examples that nobody gave is null."""
    others = {
        "test": _file(order.test, TEST),
        "public": order.public and _file(order.public, PUBLIC),
        "base": order.base,
    }
    models = [
        _facts_of(file) | {"num_examples": order.examples and update.num_examples, "local_norm": update.local_norm}
        for file, update in zip(order.files, material.locals, strict=True)
    ]
    return {
        "fedarena": __version__,
        "command": command,
        "versions": versions(),
        "seed": order.seed,
        "models": models,
        **{name: _facts_of(file) if file else None for name, file in others.items()},
        "status": "running",
        "exit_status": None,
    }


def _outcome(combination: "Combination") -> dict[str, Any]:
    from server.checkpoint import digest

    return {
        "results": {method: {"sha256": digest(arrays)} for method, arrays in combination.models.items()},
        "undefined": dict(combination.undefined),
        "seconds": dict(combination.seconds),
        "status": "finished",
        "exit_status": 0,
    }


def _facts_of(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        return {"file": str(file), "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}
