"""The examples of README.md and docs/ as a test reads them: fenced blocks, the commands in them, code spans, links."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [str(page.relative_to(ROOT)) for page in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))]

_FENCED = re.compile(r"^```(.*)\n((?:.*\n)*?)^```$", re.MULTILINE)
_SHELL = {"|", "||", "&&", "&", ";", ">", ">>", "<"}


@dataclass(frozen=True)
class Block:
    """A fenced block; one without a language holds commands.

    Attributes:
        page: the file, from the project's folder.
        line: of its first line of text.
        language: what stands behind the fence.
        text: what is between the fences.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {self.text.strip().splitlines()[0].strip()}"

    @property
    def file(self) -> str:
        """The file that it shows, if its first line is `# name`."""
        named = re.match(r"# ([\w.-]+\.\w+)\n", self.text)
        return named[1] if named else ""


@dataclass(frozen=True)
class Command:
    """One command of a block, or of a span of code in the text, without the folder of its program.

    Attributes:
        page: the file, from the project's folder.
        line: where it begins.
        words: as a shell would split them.
    """

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        words = (word if re.fullmatch(r"[^\s'\"]+", word) else shlex.quote(word) for word in self.words)
        return f"{self.page}:{self.line} {' '.join(words)}"


def text_of(page: str) -> str:
    """A page."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(language: str | None = None) -> list[Block]:
    """The fenced blocks of all pages, from the top of the first to the end of the last; of one language, or all.

    Raises:
        AssertionError: a fence that is never closed, or that is indented.
    """
    found = []
    for page in PAGES:
        text = text_of(page)
        here = [
            Block(page, text.count("\n", 0, match.start(2)) + 1, match[1].strip(), match[2])
            for match in _FENCED.finditer(text)
        ]
        assert 2 * len(here) == len(re.findall(r"^[ \t]*```", text, re.MULTILINE)), f"{page}: a fence without its end"
        found.extend(here)
    return [block for block in found if language is None or block.language == language]


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block: continuation lines and quotations joined, comments gone.

    Raises:
        AssertionError: the block ends within a command, or wants a shell's pipes and lists.
    """
    pending, begun = "", 0
    for number, line in enumerate(block.text.splitlines(), start=block.line):
        begun = begun if pending else number
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # within a quotation
            pending += "\n"
            continue
        pending = ""
        if words:
            command = Command(block.page, begun, (words[0].removeprefix(".venv/bin/"), *words[1:]))
            assert not _SHELL & set(words), f"{command}: one command a line, please"
            yield command
    assert not pending, f"{block}: ends within a command"


def each_command() -> list[Command]:
    """Every command of all pages once, where it stands first."""
    once: dict[tuple[str, ...], Command] = {}
    for block in blocks(""):
        for command in commands(block):
            once.setdefault(command.words, command)
    return list(once.values())


def spans(page: str) -> list[tuple[int, str]]:
    """The spans of code in a page's text, each with its line; line breaks are spaces."""
    text = _without_blocks(page)
    return [(text.count("\n", 0, m.start()) + 1, " ".join(m[1].split())) for m in re.finditer(r"`([^`]+)`", text)]


def links(page: str) -> list[str]:
    """The targets of a page's links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", _without_blocks(page))


def anchors(page: str) -> set[str]:
    """What links may name behind a `#`, by GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", _without_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _without_blocks(page: str) -> str:
    """Its text with empty lines for blocks, so that lines keep their numbers."""
    return _FENCED.sub(lambda match: "\n" * match[0].count("\n"), text_of(page))
