"""What all tests share: no telemetry, small data, one way to run the command."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

pytest_plugins = ["hosts", "federation"]  # their fixtures, and asserts that tell what they saw

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")

# Shells start background jobs with Ctrl-C ignored, which children inherit: tests that press it must not depend on that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


# Tests of real processes, the longest first. Begun before the others, they leave these to fill what is left of the
# cores where several workers share the files (`make test`).
_LONG = [
    "sim",
    "faults",
    "deployment",
    "oneshot_sim",
    "scenario_runs",
    "stock",
    "cluster",
    "refusals",
    "report_page",
    "examples",
    "python_api",
    "notebook",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, all others as they come."""
    places = {f"test_{name}": place for place, name in enumerate(_LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 8 x 8 images that an MLP learns in a round or two, as an .npz file."""
    random = np.random.default_rng(7)

    def draw(per_class: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.repeat(np.arange(3), per_class)
        x = random.normal(0.2, 0.1, (len(y), 8, 8)).astype(np.float32)
        for label in range(3):
            x[y == label, label * 2 : label * 2 + 2, :] += 0.7
        return x, y

    file = tmp_path_factory.mktemp("data") / "small.npz"
    x_train, y_train = draw(50)
    x_test, y_test = draw(30)
    np.savez(file, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return file


def run_sim(
    *options: str | Path, cwd: Path = ROOT, timeout: float = 150, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`python sim.py ...` as a user runs it."""
    return subprocess.run(
        [sys.executable, str(ROOT / "sim.py"), *map(str, options)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def on_the_oldest_processor(module: str, function: str) -> str:
    """What a test module's function returns where kernels have short vectors and no fused multiply-add."""
    script = f"""
import llvmlite.binding as llvm
llvm.get_host_cpu_name = lambda: ""
def unknown(): raise RuntimeError
llvm.get_host_cpu_features = unknown
from {module} import {function}
print({function}())
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT / "tests", env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]
