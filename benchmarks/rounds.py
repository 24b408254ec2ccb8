"""The main comparison: the product against stock Flower, a bare loop, bare compiled epochs, and itself at best.

All are measured in one run, one after the other and over again, so that a machine that is slower for a while is so for
everybody; ratios are taken within a repetition.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.command import busy_cpu_seconds, make_shards, run, simulate
from benchmarks.machine import available_cores
from benchmarks.table import Table

STRATEGIES = ("fedavg", "fedmedian", "weighted", "fednova")
CLIENTS = 5


@dataclass(frozen=True)
class Product:
    """One run of the product; seconds of wall unless said otherwise.

    Attributes:
        command: from launching the command to its exit.
        milestones: of the start-up, from launching to each.
        first_round: from launching to the end of the first round of all strategies.
        strategy_round: after that, wall for each round of each strategy.
        efficiency: after that, CPU seconds of training and evaluation / (cores x wall).
        busy: the same with the wall seconds of these calls, which hold waiting for a core too.
        epoch: a client's training call.
        epoch_cpu: its CPU seconds.
    """

    command: float
    milestones: dict[str, float]
    first_round: float
    strategy_round: float
    efficiency: float
    busy: float
    epoch: float
    epoch_cpu: float


@dataclass(frozen=True)
class Loop:
    """One run of an opponent, wall seconds: command, launch to first round, mean round after the first of each run."""

    command: float
    first_round: float
    round: float


@dataclass(frozen=True)
class Epochs:
    """Bare epochs: wall and CPU seconds of one."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Repetition:
    """All contestants, measured one after the other."""

    product: Product
    stock: Loop
    loop: Loop
    epochs: Epochs


def product(rounds: int, out: Path) -> Product:
    """Measure the product's main job, four strategies over `rounds` rounds."""
    done = simulate(out, "--strategies", *STRATEGIES, "--rounds", str(rounds), "--clients", str(CLIENTS))
    times: dict[str, Any] = json.loads((out / "timing.json").read_text())
    after = times["after_first"]
    wall = times["finished"] - times["first_round_all"]
    return Product(
        command=done.seconds,
        milestones={name: at + times["started"] - done.launched for name, at in times["milestones"].items()},
        first_round=times["first_round_all"] - done.launched,
        # by messages, because faster strategies have begun their second round when the slowest ends its first
        strategy_round=wall / (after["messages"] / CLIENTS),
        efficiency=busy_cpu_seconds(after) / (times["cores"] * wall),
        busy=(after["client_seconds"] + after["evaluate_seconds"]) / (times["cores"] * wall),
        epoch=after["client_seconds"] / after["messages"],
        epoch_cpu=after["client_cpu_seconds"] / after["messages"],
    )


def loop(module: str, rounds: int, runs: int, out: Path, *options: str) -> Loop:
    """Measure an opponent that writes the ends of its rounds."""
    arguments = ["-m", module, "--rounds", str(rounds), "--runs", str(runs), "--json", str(out), *options]
    done = run(*arguments, log=out.with_suffix(".log"))
    ends: list[list[float]] = json.loads(out.read_text())["runs"]
    return Loop(
        command=done.seconds,
        first_round=ends[0][0] - done.launched,
        round=fmean((one[-1] - one[0]) / (rounds - 1) for one in ends),
    )


def bare_epochs(count: int, out: Path) -> Epochs:
    """Measure compiled epochs without anything around them."""
    arguments = ["-m", "benchmarks.bare_epochs", "--epochs", str(count), "--json", str(out)]
    run(*arguments, log=out.with_suffix(".log"))
    times = json.loads(out.read_text())
    return Epochs(times["seconds"], times["cpu_seconds"])


def repetition(rounds: int, folder: Path) -> Repetition:
    """Measure everybody once."""
    return Repetition(
        product(rounds, folder / "product"),
        loop("benchmarks.stock_flower", rounds, len(STRATEGIES), folder / "stock.json"),
        loop("benchmarks.bare_loop", rounds, 1, folder / "loop.json"),
        bare_epochs(len(STRATEGIES) * CLIENTS * rounds, folder / "epochs.json"),
    )


def measure(quick: bool = False) -> list[Table]:
    """Measure and compare.

    Args:
        quick: few rounds, once: to see that it works, not what comes out.

    Returns:
        The comparison with its targets, where the seconds of the start-up go, and the opponents in variants.
    """
    rounds, repetitions = (3, 1) if quick else (10, 3)
    make_shards()
    with tempfile.TemporaryDirectory(prefix="fedarena-benchmark-") as name:
        folder = Path(name)
        # Not measured: files into the page cache, compiled kernels and shards into the product's.
        product(2, folder / "warm-product")
        loop("benchmarks.stock_flower", 2, 1, folder / "warm-stock.json")
        samples = []
        for k in range(repetitions):
            (folder / str(k)).mkdir()
            samples.append(repetition(rounds, folder / str(k)))
        variants = {
            variant: loop("benchmarks.stock_flower", rounds, 1, folder / f"{variant}.json", "--variant", variant)
            for variant in ("tutorial", "kept")
        }
    return [_targets(samples, rounds), _start_up(samples), _opponents(samples, variants, rounds)]


def _targets(samples: Sequence[Repetition], rounds: int) -> Table:
    p = [s.product for s in samples]
    n = len(STRATEGIES)
    rows = [
        _against("strategy-round vs stock Flower", [x.strategy_round for x in p], [s.stock.round for s in samples], 6),
        _against(
            f"whole command, {n} strategies x {rounds} rounds, vs stock Flower",
            [x.command for x in p],
            [s.stock.command for s in samples],
            5,
        ),
        _against("strategy-round vs bare loop", [x.strategy_round for x in p], [s.loop.round for s in samples], 2),
        _share("start-up to the first round vs stock", p, [s.stock.first_round for s in samples], "first_round", "0.6"),
        _share("CPU of a client's epoch vs bare epoch", p, [s.epochs.cpu for s in samples], "epoch_cpu", "1.15"),
        _share("wall of a client's epoch vs bare epoch", p, [s.epochs.wall for s in samples], "epoch", ""),
        (
            "efficiency: CPU of training, evaluation / (cores x wall)",
            "",
            "",
            _spread([x.efficiency for x in p]),
            ">= 0.92",
        ),
        ("the same by wall seconds of the calls", "", "", _spread([x.busy for x in p]), ""),
    ]
    return Table(
        f"Four strategies at once, {CLIENTS} clients, CNN on mnist-5k, batch size 32, 1 local epoch",
        ("measure", "product (s)", "other (s)", "ratio (lowest-highest)", "target"),
        tuple(rows),
        (
            f"Median of {len(samples)} interleaved repetitions of {rounds} rounds; ratios within a repetition.",
            "Strategy-rounds are those after the first. Stock Flower runs its four strategies one after the other.",
            f"Cores: {available_cores()}; bare epochs ran on all of them side by side.",
        ),
    )


def _against(label: str, ours: Sequence[float], theirs: Sequence[float], target: float) -> tuple[str, ...]:
    """How many times faster than the other."""
    ratios = [other / own for own, other in zip(ours, theirs, strict=True)]
    return (label, f"{median(ours):.3f}", f"{median(theirs):.3f}", _spread(ratios, "x"), f">= {target:g}x")


def _share(label: str, products: Sequence[Product], theirs: Sequence[float], name: str, target: str) -> tuple[str, ...]:
    """Which share of the other's time."""
    ours = [float(getattr(one, name)) for one in products]
    ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
    return (label, f"{median(ours):.3f}", f"{median(theirs):.3f}", _spread(ratios), f"<= {target}" if target else "")


def _spread(values: Sequence[float], unit: str = "") -> str:
    return f"{median(values):.2f}{unit} ({min(values):.2f}-{max(values):.2f})"


def _start_up(samples: Sequence[Repetition]) -> Table:
    products = [s.product for s in samples]
    steps = {name: median(p.milestones[name] for p in products) for name in products[0].milestones}
    steps["first round of all four strategies"] = median(p.first_round for p in products)
    steps["for comparison: stock Flower's first round of one"] = median(s.stock.first_round for s in samples)
    return Table(
        "Where the seconds of the start-up go",
        ("reached", "seconds after the command"),
        tuple((name, f"{seconds:.2f}") for name, seconds in steps.items()),
        ("Steps overlap: a line says when a step had ended, not how long it took.",),
    )


def _opponents(samples: Sequence[Repetition], variants: dict[str, Loop], rounds: int) -> Table:
    ours = median(s.product.strategy_round for s in samples)
    named = {
        "stock Flower as in its tutorial, clients evaluate too": variants["tutorial"].round,
        "stock Flower, central evaluation only (the opponent above)": median(s.stock.round for s in samples),
        "stock Flower, the model kept in the worker process": variants["kept"].round,
        "bare loop: Keras fit over five shards, NumPy mean": median(s.loop.round for s in samples),
        "bare compiled epochs on all cores, nothing else": median(s.epochs.wall for s in samples)
        * CLIENTS
        / available_cores(),
        "product": ours,
    }
    return Table(
        "Where the product stands among its opponents",
        ("contestant", "round of five clients (s)", "product is faster by"),
        tuple((label, f"{seconds:.3f}", f"{seconds / ours:.2f}x") for label, seconds in named.items()),
        (f"The first and the third line were measured once over {rounds} rounds; no target depends on them.",),
    )
