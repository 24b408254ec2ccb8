"""The machine that a command finds: folders for temporary files, an open umask, low limits, closed pipes, GPUs."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from made_up_runs import made_up_run

from client.join import client_number
from server import ray_folder
from server.enroll import enroll
from server.ray_folder import make_ray_folder, remove_ray_folder
from task import system_limits as limits
from task.command import CLOSED_PIPE, private, run_command
from task.errors import UserError
from task.identity import Identity
from task.shardfile import Header, write_shard
from task.system_limits import check_limits

WATCHED = """
import os
from pathlib import Path

import keras
import ray


def build(input_shape, num_classes):
    told = Path(os.environ["TOLD"], str(os.getpid()))
    rays = Path(ray.get_runtime_context().get_temp_dir()).parent if ray.is_initialized() else None
    mode = f"{rays.stat().st_mode & 0o777:o}" if rays else "not there yet"
    told.write_text(f'{os.environ["CUDA_VISIBLE_DEVICES"]},{mode}')
    return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten(), keras.layers.Dense(num_classes)])
"""


def open_to_others(*places: Path) -> list[str]:
    """Files and folders, these and all below, that anyone but their owner may do anything with."""
    found = [path for place in places for path in (place, *place.rglob("*")) if not path.is_symlink()]
    return [f"{path} {stat.S_IMODE(path.stat().st_mode):o}" for path in found if path.stat().st_mode & 0o077]


def command(*words: str | Path, umask: int = -1, **options) -> "subprocess.CompletedProcess[str]":
    """One of our commands, as a user calls it."""
    start = [str(ROOT / "sim.py")] if words[0] == "sim.py" else ["-m", str(words[0])]
    return subprocess.run(
        [sys.executable, *start, *map(str, words[1:])],
        **{"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        text=True,
        timeout=120,
        check=False,
        umask=umask,
    )


# One run where everything is odd --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home and a working folder; the folder for temporary files is as long as those of batch systems."""
    folder = tmp_path_factory.mktemp("machine")
    for name in ("home", "work", "told", "job.1234567.some-cluster-" + 60 * "x"):
        (folder / name).mkdir(mode=0o700)
    (folder / "work" / "watched.py").write_text(WATCHED)
    (folder / "work" / "watched.py").chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> "subprocess.CompletedProcess[str]":
    """A run under umask 000 whose TMPDIR is too long for Ray's sockets, with clients that shall use no GPU."""
    hidden = ("FEDARENA_CACHE", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "RAY_TMPDIR", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {
        "HOME": str(place / "home"),
        "TMPDIR": str(next(place.glob("job*"))),
        "TOLD": str(place / "told"),
    }
    words = ["--dataset", "digits", "--model", "watched:build", "--clients", "2", "--strategies", "fedavg"]
    words += ["--rounds", "1", "--workers", "1", "--gpus-per-client", "0", "--tensorboard", "--out", "a/b"]
    environment["CUDA_VISIBLE_DEVICES"] = "0"
    return command("sim.py", *words, umask=0, cwd=place / "work", env=environment)


def test_a_long_tmpdir_is_told_of_and_ray_is_elsewhere(run, place: Path):
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    [line] = [line for line in run.stdout.splitlines() if "TMPDIR" in line]
    assert "characters too long for Ray's sockets; Ray uses /" in line
    assert not Path(line.split()[-1]).exists()  # it went with its Ray
    modes = {path.read_text().split(",")[1] for path in (place / "told").iterdir()}
    assert modes - {"not there yet"} == {"700"}  # while it was there


def test_whatever_a_run_makes_is_for_its_owner_alone(run, place: Path):
    assert run.returncode == 0, run.stderr
    assert (place / "work" / "a" / "b" / "tensorboard").is_dir()
    assert list((place / "home" / ".cache" / "fedarena" / "datasets").glob("digits*.npz"))
    assert not open_to_others(place)


def test_workers_of_clients_that_shall_use_no_gpu_see_none(run, place: Path):
    assert run.returncode == 0, run.stderr
    seen = sorted(path.read_text().split(",")[0] for path in (place / "told").iterdir())
    assert seen == ["", "0"]  # a worker; the command itself


# Umask ----------------------------------------------------------------------------------------------------------------


def test_commands_without_a_run_make_private_files_too(tmp_path: Path, small_data: Path):
    place = tmp_path / "place"
    place.mkdir(mode=0o700)
    environment = {**os.environ, "FEDARENA_CACHE": str(place / "cache" / "below"), "HOME": str(place)}
    out, federation = (place / name / "below" for name in ("shards", "federation"))
    for words in (
        ["task.data", "split", "--dataset", small_data, "--clients", "2", "--out", out],
        ["server", "enroll", "a", "--host", "fl.example.org", "--federation", federation],
    ):
        done = command(*words, umask=0, env=environment)
        assert done.returncode == 0, done.stderr
    assert (out / "test.npz").exists() and (federation / "ca.pem").exists()
    assert not open_to_others(place)


def test_the_umask_is_put_back(tmp_path: Path):
    before = os.umask(0o002)
    try:
        with private():
            (tmp_path / "made").mkdir()
        assert os.umask(0o002) == 0o002
    finally:
        os.umask(before)
    assert not open_to_others(tmp_path / "made")


# Folders for temporary files ------------------------------------------------------------------------------------------


def test_rays_folder_is_where_the_user_wants_temporary_files_and_private(monkeypatch, capsys):
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    wanted = make_ray_folder(print)  # a short one below /tmp
    try:
        monkeypatch.setenv("TMPDIR", str(wanted))
        inner = make_ray_folder(print)
        assert inner.parent == wanted
        assert not open_to_others(wanted)
        assert capsys.readouterr().out == ""
    finally:
        remove_ray_folder(wanted)
    assert not wanted.exists()
    elsewhere = make_ray_folder(print)
    remove_ray_folder(elsewhere)
    told = f"TMPDIR={wanted} cannot be written (No such file or directory); Ray uses {elsewhere}\n"
    assert capsys.readouterr().out == told
    assert not wanted.exists()  # a folder that the user named is not made by accident


def test_without_any_folder_the_variable_to_set_is_named(monkeypatch):
    monkeypatch.setattr(ray_folder, "_ROOM", 2**80)
    with pytest.raises(UserError, match=r"/tmp is full .*set TMPDIR to one that can be used"):
        make_ray_folder(print)


# Limits ---------------------------------------------------------------------------------------------------------------


def limited(name: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(name, (value, value))


@pytest.mark.parametrize("program", ["sim.py", "server", "client"])
def test_little_virtual_memory_is_one_line(program: str, small_data: Path, tmp_path: Path):
    """Ray and TensorFlow would hang or leave a traceback."""
    write_shard(tmp_path / "shard-0.npz", np.zeros((4, 2), np.float32), np.arange(4) % 2, Header(client=0))
    options = {
        "sim.py": ["--dataset", small_data, "--out", tmp_path / "out"],
        "server": ["--test", tmp_path / "shard-0.npz", "--listen", "127.0.0.1:0", "--out", tmp_path / "out"],
        "client": ["--shard", tmp_path / "shard-0.npz", "--server", "127.0.0.1:1", "--logs", tmp_path / "out"],
    }
    done = command(program, *options[program], preexec_fn=limited(resource.RLIMIT_AS, 10**9))
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1 and "`ulimit -v` lets a process map 0.9 GiB" in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_a_soft_limit_on_open_files_is_raised_and_a_hard_one_told(monkeypatch):
    limit, asked = (20, 4096), []
    monkeypatch.setattr(resource, "getrlimit", lambda name: limit if name == resource.RLIMIT_NOFILE else (-1, -1))
    monkeypatch.setattr(resource, "setrlimit", lambda name, value: asked.append((name, value)))
    check_limits(files=44)
    assert asked == [(resource.RLIMIT_NOFILE, (100, 4096))]
    limit = (20, 64)
    with pytest.raises(UserError, match="`ulimit -n` lets a process open 64 files, and 100 are needed: raise it"):
        check_limits(files=44)


def test_few_threads_are_told(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(resource, "getrlimit", lambda name: (50, 50) if name == resource.RLIMIT_NPROC else (-1, -1))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match=r"`ulimit -u` lets you run 50 processes and threads, and \d+ more are needed"):
        check_limits(threads=100)
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # for whom there is no such limit
    monkeypatch.setattr(limits, "_CGROUP", tmp_path)
    check_limits(threads=100)
    (tmp_path / "pids.max").write_text("100\n")
    (tmp_path / "pids.current").write_text("70\n")
    with pytest.raises(UserError, match=r"may start 30 more processes and threads, .* \(docker run --pids-limit"):
        check_limits(threads=100)


# A reader that leaves -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["members", "enroll", "split", "report", "kernels", "help"])
def test_a_closed_pipe_ends_a_command_quietly(name: str, small_data: Path, tmp_path: Path):
    enroll(tmp_path / "federation", ["a"], ["fl.example.org"])
    words = {
        "members": ["server", "members", "--federation", tmp_path / "federation"],
        "enroll": ["server", "enroll", "b", "--federation", tmp_path / "federation"],
        "split": ["task.data", "split", "--dataset", small_data, "--clients", "2", "--out", tmp_path / "out"],
        "report": ["server.report", made_up_run(tmp_path / "run", ["iid"], ["fedavg"], [0], 1)],
        "kernels": ["strategies.kernels"],
        "help": ["sim.py", "--help"],
    }
    read, write = os.pipe()
    os.close(read)
    try:
        done = command(*words[name], stdout=write)
    finally:
        os.close(write)
    assert done.returncode in (0, CLOSED_PIPE, -signal.SIGPIPE)
    assert done.stderr == ""


SHOWN = """
import sys
from pathlib import Path
from task.chatter import Chatter, console_on
from task.command import run_command

def act():
    with Chatter(verbose=False) as chatter:
        console = console_on(chatter, live=False)
        chatter.redirect(Path(sys.argv[1]))
        for _ in range(3):
            console.print("a line")
        Path(sys.argv[1]).with_name("result").touch()
    return 0

sys.exit(run_command("a run", act))
"""


def test_a_run_goes_on_when_nobody_looks_any_more(tmp_path: Path):
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-c", SHOWN, tmp_path / "log"]
    done = subprocess.run(words, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) in ((0, ""), (CLOSED_PIPE, ""))
    assert (tmp_path / "result").exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "raise `ulimit -v`"),
        (RuntimeError("can't start new thread"), "raise `ulimit -u`"),
        (
            OSError(errno.EMFILE, "Too many open files", "shard-0.npz"),
            "shard-0.npz: Too many open files: allow more open files (ulimit -n",
        ),
    ],
)
def test_what_the_system_refuses_is_one_line(error: Exception, told: str, capsys):
    def act() -> int:
        raise error

    assert run_command("a command", act) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("a command: ") and told in line


def test_a_fault_of_ours_stays_one():
    with pytest.raises(RuntimeError, match="a fault"):
        run_command("a command", lambda: (_ for _ in ()).throw(RuntimeError("a fault")))


# Shards under other names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["my-hospital.npz", "shard-0.npz"])
def test_a_renamed_shard_is_told_by_what_it_says_inside(name: str, tmp_path: Path):
    write_shard(tmp_path / name, np.zeros((4, 2), np.float32), np.arange(4) % 2, Header(client=1))
    with pytest.raises(UserError) as raised:
        client_number(tmp_path / name, Identity.new("ann", 0, None, b"ca"))
    told = str(raised.value)
    assert told.startswith(
        f"{tmp_path / name} says inside that it is the shard of client 1, but ann is enrolled as client 0"
    )
    assert "give ann's own shard, or this one with the identity of client 1" in told
