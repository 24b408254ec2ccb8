"""What a notebook shows of a run: the verdict, the table at its end, and where the report is."""

from html import escape
from pathlib import Path

from server.summary import Outcome, Table, summary_table

_SENTENCES = 8  # that are shown; all are in the report
# Right on any page, light or dark: its own ink on its own paper, and lines that are half of anything.
_INK = "color: inherit; font: inherit;"
_LINE = "border-bottom: 1px solid rgba(128, 128, 128, .35);"


def cell(outcome: Outcome, status: str, folder: Path, link: str) -> str:
    """An HTML fragment that needs nothing else and leaves the page around it alone.

    Args:
        outcome: of the run.
        status: of the run; said if it is not `finished`.
        folder: of the run.
        link: to its report.
    """
    said = [*(one.sentence for one in outcome.same), *outcome.verdict]
    if len(said) > _SENTENCES:
        said = [*said[:_SENTENCES], f"{len(said) - _SENTENCES} more sentences are in the report."]
    parts = [f'<p style="margin: .2em 0;">{escape(sentence)}</p>' for sentence in said]
    if outcome.rounds:
        parts.append(_table(summary_table(outcome.summaries)))
    unfinished = "" if status == "finished" else f"<b>{escape(status)}</b>. "
    report = f'<a style="color: inherit;" href="{escape(link)}" target="_blank">The report</a>'
    parts.append(f'<p style="margin: .5em 0;">{unfinished}{report} of <code>{escape(str(folder))}</code></p>')
    return f'<div style="max-width: 70em;">{"".join(parts)}</div>'


def _table(table: Table) -> str:
    body = "".join(_row(row, "td") for row in table.rows)
    style = f"border-collapse: collapse; margin: .5em 0; font-variant-numeric: tabular-nums; {_INK}"
    return (
        f'<div style="overflow-x: auto;"><table style="{style}">'
        f"<thead>{_row(table.headers, 'th')}</thead><tbody>{body}</tbody></table></div>"
        f'<p style="margin: .5em 0; opacity: .75;">{escape(table.note)}</p>'
    )


def _row(cells: tuple[str, ...], tag: str) -> str:
    inside = "".join(
        f'<{tag} style="padding: .15em .7em; text-align: {side}; white-space: nowrap;">{escape(text)}</{tag}>'
        for text, side in zip(cells, ["left", *["right"] * len(cells)], strict=False)
    )
    return f'<tr style="background: none; {_LINE}">{inside}</tr>'
