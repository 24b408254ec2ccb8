"""No file's content becomes code: the project calls nothing that would run it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("task", "strategies", "client", "server", "benchmarks")
FILES = [ROOT / "sim.py", *(file for part in PARTS for file in sorted((ROOT / part).rglob("*.py")))]
UNPICKLERS = {
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "yaml",
    "jsonpickle",
}
RUNNERS = {"eval", "exec", "compile", "__import__"}
LOADERS = {"load_model": ("safe_mode", True), "deserialize_keras_object": ("safe_mode", True)}


def offences(source: str) -> list[str]:
    """What in a module could run what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"line {node.lineno}: imports {name}" for name in names if name.split(".")[0] in UNPICKLERS]
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        given = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
        owner = (
            function.value.id if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) else ""
        )
        called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if isinstance(function, ast.Name) and called in RUNNERS:
            found.append(f"line {node.lineno}: {called}()")
        numpy_load = (owner in ("np", "numpy") and called == "load") or called == "read_array"
        if given.get("allow_pickle", numpy_load) or (numpy_load and given.get("allow_pickle") is not False):
            found.append(f"line {node.lineno}: {called}() without allow_pickle=False")
        if called in LOADERS and given.get(LOADERS[called][0]) is not LOADERS[called][1]:
            found.append(f"line {node.lineno}: {called}() without safe_mode=True")
        if called == "enable_unsafe_deserialization":
            found.append(f"line {node.lineno}: {called}()")
    return found


def test_nothing_that_is_read_is_run() -> None:
    assert len(FILES) > 150
    found = {str(file.relative_to(ROOT)): offences(file.read_text(encoding="utf-8")) for file in FILES}
    assert not {file: some for file, some in found.items() if some}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from yaml import load",
        "eval(text)",
        "numpy.load(file)",
        "np.load(file, allow_pickle=True)",
        "np.load(file, allow_pickle=wanted)",
        "np.savez(file, allow_pickle=True)",
        "np.lib.format.read_array(file)",
        "keras.saving.load_model(path)",
        "keras.models.load_model(path, safe_mode=False)",
        "keras.saving.deserialize_keras_object(config)",
        "keras.config.enable_unsafe_deserialization()",
    ],
)
def test_what_would_run_is_found(source: str) -> None:
    assert offences(source)


def test_what_reads_plainly_is_let_be() -> None:
    assert not offences("np.load(f, allow_pickle=False); load_model(p, safe_mode=True); re.compile(p); json.loads(t)")
