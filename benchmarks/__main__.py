"""`python -m benchmarks [NAME ...]`: measure, print tables, and with --write renew docs/benchmarks.md."""

import argparse
import re
import sys
from importlib import import_module
from pathlib import Path

from benchmarks.command import ROOT, CommandFailedError
from benchmarks.machine import machine_line
from benchmarks.table import Table

NAMES = {
    "rounds": "Rounds: the product, stock Flower, a bare loop, bare epochs",
    "kernels": "Kernels of aggregation",
    "matching": "Matching of hidden units",
    "memory": "Memory of the server",
    "scale": "Many clients",
    "kills": "Kills: runs killed at random moments and resumed",
    "attacks": "Attacks on a running server",
    "soak": "Soak: what hundreds of rounds leave behind",
    "deployment": "Deployment: server and clients as processes of their own",
}
KINDS = ("simulation", "clients")  # of `benchmarks.kills`
PAGE = ROOT / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Written by `python -m benchmarks --write` (`make bench ARGS=--write`); what each figure means is in the module's own
words in `benchmarks/`. Ratios are of measurements side by side in one run; targets are printed, not enforced. Other
programs on the machine spoil the figures: run it alone.
"""


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """The options of the command; words None: those of this process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure speed and memory.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES) + "; default: all")
    parser.add_argument("--quick", action="store_true", help="too short to be trusted: does everything still run?")
    kills = parser.add_argument_group("of kills alone")
    kills.add_argument("--of", choices=KINDS, help="what is killed; default: all")
    kills.add_argument("--times", type=int, metavar="N", help="how many kills of each; default: 50 and 20")
    kills.add_argument("--seed", type=int, metavar="K", help="of the moments and what is drawn with them")
    parser.add_argument("--write", action="store_true", help=f"put the results into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(words)
    if unknown := [name for name in options.names if name not in NAMES]:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    if of_kills(options) and options.names != ["kills"]:
        parser.error("--of, --times and --seed are of kills alone: python -m benchmarks kills --times N")
    if (options.times is not None and options.times < 1) or (options.seed is not None and options.seed < 0):
        parser.error("--times is at least 1 and --seed at least 0")
    return options


def of_kills(options: argparse.Namespace) -> dict[str, object]:
    """What is given of the options that only the kills have."""
    return {name: getattr(options, name) for name in ("of", "times", "seed") if getattr(options, name) is not None}


def main() -> int:
    """Run the benchmarks that are named, all without a name; the exit status is 1 if a measured command failed."""
    options = parsed()
    machine = machine_line()
    print(machine + "\n")
    for name in options.names or NAMES:
        try:
            tables: list[Table] = import_module(f"benchmarks.{name}").measure(quick=options.quick, **of_kills(options))
        except CommandFailedError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print("\n".join(table.text() for table in tables), flush=True)
        if options.write:
            given = [word for option, value in of_kills(options).items() for word in (f"--{option}", str(value))]
            command = " ".join(["python -m benchmarks", name, *(["--quick"] if options.quick else []), *given])
            write_section(PAGE, name, f"{machine}; `{command}`.", tables)
    return 0


def write_section(page: Path, name: str, origin: str, tables: list[Table]) -> None:
    """Renew one benchmark's section of the page and leave the others as they are."""
    sections = dict.fromkeys(NAMES, "")
    if page.exists():
        sections |= re.findall(
            r"^<!-- (\w+) -->\n(.*?)(?=^<!-- \w+ -->\n|\Z)", page.read_text(), re.DOTALL | re.MULTILINE
        )
    body = "\n".join(table.markdown() for table in tables)
    sections[name] = f"## {NAMES[name]}\n\n{origin}\n\n{body}"
    page.parent.mkdir(exist_ok=True)
    parts = [f"<!-- {key} -->\n{text.strip()}\n" for key, text in sections.items() if text.strip()]
    page.write_text("\n".join([HEAD, *parts]))


if __name__ == "__main__":
    sys.exit(main())
