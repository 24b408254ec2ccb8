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
    "kills": "Kills: a run killed at random moments and resumed",
    "attacks": "Attacks on a running server",
    "soak": "Soak: what hundreds of rounds leave behind",
    "deployment": "Deployment: server and clients as processes of their own",
}
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
    parser.add_argument("--write", action="store_true", help=f"put the results into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(words)
    if unknown := [name for name in options.names if name not in NAMES]:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    return options


def main() -> int:
    """Run the benchmarks that are named, all without a name; the exit status is 1 if a measured command failed."""
    options = parsed()
    machine = machine_line()
    print(machine + "\n")
    for name in options.names or NAMES:
        try:
            tables: list[Table] = import_module(f"benchmarks.{name}").measure(quick=options.quick)
        except CommandFailedError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print("\n".join(table.text() for table in tables), flush=True)
        if options.write:
            command = "python -m benchmarks " + " ".join([name, *(["--quick"] if options.quick else [])])
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
