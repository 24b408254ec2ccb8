"""Files as nobody should make them: seeded damage, and what must hold at every door through which a file comes."""

import contextlib
import copy
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from task.errors import UserError

Dice = random.Random

SEED = os.environ.get("FUZZ_SEED", "20261127")
TIMES = int(os.environ.get("FUZZ_TIMES", "1"))

SECONDS = 60  # after which a case hangs; none takes one
HEADROOM = (
    3 << 30
)  # bytes of address space that all cases of a test may ask for together, threads of libraries included
LONGEST = 500  # characters of a refusal, the file's path included


class Hangs(BaseException):
    """A door did not come back; no handler of ours may swallow it."""


def damaged(dice: Dice, content: bytes) -> bytes:
    """Bytes after one to four accidents, sometimes none at all left."""
    data = bytearray(content)
    for _ in range(dice.choice([1, 1, 1, 2, 4])):
        at, length = dice.randrange(len(data) + 1), dice.choice([1, 2, 4, 8, 64])
        accident = dice.randrange(9)
        if accident == 0 and data:  # a flipped bit
            data[at % len(data)] ^= 1 << dice.randrange(8)
        elif accident == 1:  # cut off
            del data[at:]
        elif accident == 2:  # inserted junk
            data[at:at] = dice.randbytes(length)
        elif accident == 3:  # lost
            del data[at : at + length]
        elif accident == 4:  # copied from elsewhere
            start = dice.randrange(len(data) + 1)
            data[at : at + length] = data[start : start + length]
        elif accident == 5:  # zeroed
            data[at : at + length] = bytes(min(length, len(data) - at))
        elif accident == 6:  # appended
            data += dice.randbytes(length)
        elif accident == 7:  # the largest numbers
            data[at : at + length] = b"\xff" * min(length, len(data) - at)
        else:  # another byte that means something
            data[at : at + 1] = dice.choice(
                [b"\0", b"\n", b"\r", b'"', b",", b"{", b"[", b"\x80", b"\xed\xa0\x80", b"-"]
            )
    return bytes(data)


ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 0.5, -0.0, 1e308, 1e-320),
    *(float("nan"), float("inf"), float("-inf")),
    *("", "x", "\0", "a\nb", "\x1b[2J", "é\u202e", "../../etc/passwd", "1e999", "NaN", "x" * 3000, "\ud800"),
    *([], [[]], [None], [1e308, "x"], {}, {"": {}}, {"x": [0]}, [0] * 2000),
)


def odd_json(dice: Dice, value: Any) -> bytes:
    """A JSON document of which one or two nodes are something else, missing or doubled; or that is hardly one."""
    kind = dice.randrange(12)
    text = json.dumps(value)
    if kind == 0:
        return damaged(dice, text.encode())
    if kind == 1:
        return dice.choice(BROKEN_TEXTS)
    value = json.loads(text)
    for _ in range(dice.choice([1, 1, 2])):
        value = _changed(dice, value)
    return json.dumps(value).encode(errors="surrogatepass").replace(b'"1e999"', b"1e999")


BROKEN_TEXTS: tuple[bytes, ...] = (
    *(b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf{}", b"null", b"[]", b'"x"', b"1e999", b"-" * 10, b"9" * 5000),
    *(b"[" * 100_000, b'{"a":' * 100_000, b"[" * 500 + b"]" * 500, b'{"a":1,"a":2}', "{}".encode("utf-16"), b"{}\0"),
)


def _changed(dice: Dice, value: Any) -> Any:
    """A tree of lists and dictionaries with one node changed; each level is as likely as the others."""
    if not isinstance(value, dict | list) or not value or dice.random() < 0.15:
        return copy.deepcopy(dice.choice(ODD_VALUES))
    key = dice.choice(list(value) if isinstance(value, dict) else range(len(value)))
    deeper = isinstance(value[key], dict | list) and dice.random() < 0.85
    fate = dice.randrange(8)
    if deeper or fate > 2:
        value[key] = _changed(dice, value[key])
    elif fate == 0:
        del value[key]
    elif isinstance(value, dict):
        value[dice.choice(["", "x", "\0", "__class__", "x" * 999])] = (
            value.pop(key) if fate == 1 else copy.deepcopy(value[key])
        )
    else:
        value.insert(dice.randrange(len(value) + 1), copy.deepcopy(value[key]))
    return value


# What an .npy file may say of itself, and no array is.
ODD_HEADERS: tuple[bytes, ...] = tuple(
    text.encode("latin1")
    for text in (
        *(
            f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"
            for descr, order, shape in (
                ("<f8", False, "(1000000000000,)"),
                ("<f8", False, "(1000000, 1000000)"),
                ("|u1", False, "(2, 100000000000)"),
                ("|u1", True, "(9223372036854775807, 4)"),
                ("<f8", False, "(9" + "0" * 300 + ",)"),
                ("<f8", False, "(-1,)"),
                ("<f8", False, "(-1, -8)"),
                ("<f8", False, "(0, 1000000000000)"),
                ("<f8", True, "(1000000000000, 0)"),
                ("<f8", False, "(True, 8)"),
                ("<f8", False, "(2.5,)"),
                ("<f8", False, "7"),
                ("<f8", False, "None"),
                ("<f8", False, "(" + "1, " * 40 + ")"),
                ("<f8", False, "(" + "1, " * 80 + ")"),
                ("<f8", 7, "(8,)"),
                ("|O", False, "(1,)"),
                ("|V1000000000", False, "(1000000000,)"),
                ("|V8", False, "(8,)"),
                ("|S0", False, "(1000000000000,)"),
                ("<U1000000000", False, "(2,)"),
                ("|M8[ns]", False, "(8,)"),
                ("<c16", False, "(4,)"),
                (">f8", True, "(2, 4)"),
                ("<f16", False, "(4,)"),
                ("<f2", False, "(32,)"),
                ("|b1", False, "(64,)"),
                ("nonsense", False, "(8,)"),
                ("<f8" * 1000, False, "(8,)"),
            )
        ),
        "{'descr': [('x', '<f8'), ('y', '<i4', (1000000,))], 'fortran_order': False, 'shape': (8,), }",
        "{'descr': [('x', '|O')], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': [('x', '<f8', (1000000000, 1000000000))], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f8', 'shape': (8,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (8,), 'more': 1, }",
        "{'descr': __import__('os').mkdir('canary'), 'fortran_order': False, 'shape': (8,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (8,)",
        "(" * 900 + ")" * 900,
        "[" * 20_000,
        "-" * 9000 + "1",
        "{" + "1: 2, " * 1000 + "}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (8,), }" + " " * 70_000,
        "",
        "\0",
    )
)


def odd_npy(dice: Dice, header: bytes | None = None) -> bytes:
    """An .npy member with such a header before 64 bytes, now and then of a version that does not exist."""
    text = dice.choice(ODD_HEADERS) if header is None else header
    version = dice.choice([b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\4\0", b"\0\0", b"\xff\xff"])
    size = len(text) if dice.random() < 0.9 else dice.choice([0, 1, 2**16 - 1])
    long = version != b"\1\0" or size > 2**16 - 1
    if long and version == b"\1\0":
        version = b"\2\0"
    return b"\x93NUMPY" + version + struct.pack("<I" if long else "<H", size) + text + bytes(range(64))


def odd_zip(dice: Dice, content: bytes) -> bytes:
    """A zip archive with a member that is missing, renamed, doubled, odd, or not as large as the archive says."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    k = dice.randrange(len(members))
    name, data = members[k]
    change = dice.randrange(7)
    if change == 0:
        del members[k]
    elif change == 1:
        names = [
            dice.choice(members)[0],
            name.upper(),
            f"./{name}",
            f"../{name}",
            f"/{name}",
            "x\ny",
            f"{name}\0.npy",
        ]
        members[k] = dice.choice(names), data
    elif change == 2:
        members.append((name, dice.choice(members)[1]))
    elif change == 3:
        members[k] = name, b""
    elif change == 4:
        members[k] = name, damaged(dice, data)
    elif change == 5:
        members[k] = name, odd_npy(dice)
    else:
        members[k] = name, pickle.dumps(Bomb())
    packed = zipped(
        members, dice.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
    )
    return wrong_sizes(dice, packed) if dice.random() < 0.2 else packed


def zipped(members: list[tuple[str, bytes]], how: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive in memory; names may come twice."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", how) as archive, _silent():
        for name, data in members:
            archive.writestr(name, data)
    return packed.getvalue()


def wrong_sizes(dice: Dice, content: bytes) -> bytes:
    """An archive whose directory says other sizes, places or ways of packing than there are."""
    data = bytearray(content)
    places = [at for at in range(len(data) - 46) if data[at : at + 4] == b"PK\1\2"]
    if places:
        at = dice.choice(places)
        field, kind = dice.choice([(8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (28, "<H"), (42, "<I")])
        largest = 0xFFFF if kind == "<H" else 0xFFFFFFFF
        struct.pack_into(kind, data, at + field, dice.choice([0, 1, 12, 99, 0x7FFF, largest - 1, largest]))
    return bytes(data)


def odd_archive(dice: Dice, content: bytes) -> bytes | None:
    """An archive damaged in one of three ways; each fourth time None, for what its kind can be damaged in besides."""
    ways = (damaged, odd_zip, wrong_sizes)
    kind = dice.randrange(4)
    return ways[kind](dice, content) if kind < len(ways) else None


class Bomb:
    """Whoever unpickles it makes a file that must never be there."""

    path = "canary"

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def in_its_place(file: Path) -> Iterator[str]:
    """What else may lie where a file is expected: put there one by one; the name of each. Nothing lies there after."""
    for kind in ("nothing", "empty", "folder", "loop", "dangling", "folder that is none"):
        _clear(file)
        if kind == "empty":
            file.touch()
        elif kind == "folder":
            file.mkdir()
        elif kind == "loop":
            file.symlink_to(file.name)
        elif kind == "dangling":
            file.symlink_to("nowhere")
        elif kind == "folder that is none":
            file.symlink_to("/dev/null/x")
        yield kind
    _clear(file)


def _clear(file: Path) -> None:
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    else:
        file.unlink(missing_ok=True)


def refusal(door: Callable[[], object], named: Path | str) -> str | None:
    """What a door says to a bad file; None if it lets it in.

    Args:
        door: called once.
        named: what the refusal must name.

    Raises:
        AssertionError: it raises anything but a UserError of one line that names the file.
    """
    try:
        door()
    except UserError as error:
        told = str(error)
        assert told.isprintable(), f"not one line: {told!r}"
        assert str(named) in told, f"does not name {named}: {told}"
        assert len(told) <= LONGEST, f"{len(told)} characters: {told}"
        return told
    return None


def throw(name: str, count: int, make: Callable[[Dice], bytes], door: Callable[[], object], file: Path) -> int:
    """Throw so many files at a door; how many it refused.

    Args:
        name: of the door; with SEED it decides what is thrown.
        count: files, TIMES as many where a person wants more.
        make: one file's content.
        door: reads `file`.
        file: where each content lies in turn; the last that a door broke on stays beside it.

    Raises:
        AssertionError: with all cases that broke the rule of `refusal`, or took too long.
    """
    refused, broke = 0, []
    with bounded():
        for number in range(count * TIMES):
            content = make(Dice(f"{SEED} {name} {number}"))
            file.write_bytes(content)
            signal.alarm(SECONDS)
            try:
                refused += refusal(door, file) is not None
            except (Exception, Hangs) as error:  # noqa: BLE001 - whatever it is, it is told below
                place = traceback.extract_tb(error.__traceback__)[-1]
                broke.append(
                    f"case {number}: {type(error).__name__}: {str(error)[:300]} ({place.filename}:{place.lineno})"
                )
                file.with_name(f"broke-{name}-{number}").write_bytes(content)
    sys.stdout.write(f"{name}: seed {SEED}, {count * TIMES} files, {refused} refused, {len(broke)} broke it\n")
    assert not broke, "\n".join(broke[:40])
    return refused


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Address space that grows by HEADROOM at most, so that an absurd request fails at once; and no case that hangs."""

    def hang(*_: object) -> None:
        raise Hangs(f"no answer in {SECONDS} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")  # Linux; elsewhere only absurd requests fail, as they do anyway
    pages = int(statm.read_text().split()[0]) if statm.exists() else None
    before = signal.signal(signal.SIGALRM, hang)
    if pages is not None:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + HEADROOM, hard))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile, of a name that comes twice
        yield
