"""Tables of measurements, for the terminal and for Markdown."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """One table of results.

    Attributes:
        title: what was measured.
        head: names of the columns, with units.
        rows: cells, already formatted; as many in each row as in `head`.
        notes: sentences below the table: how it was measured, what grows and why.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Aligned columns for the terminal: the first to the left, the others to the right."""
        lines = [self._line(row, " ", "  ") for row in (self.head, *self.rows)]
        return "\n".join([self.title, *(line.rstrip() for line in lines), *(f"  {note}" for note in self.notes), ""])

    def markdown(self) -> str:
        """The same as a Markdown table, aligned in the source too."""
        rule = tuple("-" * (width - 1) + ("-" if column == 0 else ":") for column, width in enumerate(self._widths()))
        lines = [f"| {self._line(row, ' ', ' | ')} |" for row in (self.head, rule, *self.rows)]
        return "\n".join([f"### {self.title}", "", *lines, "", *(f"- {note}" for note in self.notes)]).rstrip() + "\n"

    def _widths(self) -> list[int]:
        return [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]

    def _line(self, row: tuple[str, ...], fill: str, between: str) -> str:
        first, *others = zip(row, self._widths(), strict=True)
        cells = [first[0].ljust(first[1], fill), *(cell.rjust(width, fill) for cell, width in others)]
        return between.join(cells)
