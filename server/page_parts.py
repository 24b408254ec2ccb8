"""What all pages have in common: the macro for tables, the head that lets nothing load, the style for light and dark."""

# ruff: noqa: E501
from typing import TYPE_CHECKING, Any

from task.errors import printable_tree

if TYPE_CHECKING:
    import jinja2


def page_environment() -> "jinja2.Environment":
    """What pages are made with: texts of others are escaped and printable."""
    import jinja2

    def finalize(value: Any) -> Any:
        return printable_tree(value) if type(value) is str else value  # what is marked as safe is our own

    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, finalize=finalize)


TABLE = r"""{% macro table(data, class="") %}
<div class="wide"><table class="{{ class }}">
<thead><tr>{% for cell in data.headers %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in data.rows %}
<tr>{% for cell in row %}{% if loop.first %}<th scope="row">{{ cell }}</th>{% else %}<td>{{ cell }}</td>{% endif %}{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% if data.note %}<p class="note">{{ data.note }}</p>{% endif %}
{% endmacro %}
"""
"""The Jinja macro `table(data, class)` of a `server.summary.Table`; before everything else."""

DOCUMENT = r"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
"""
"""From the doctype to the policy that says what may load."""

HEAD = (
    DOCUMENT
    + r"""<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
"""
)
"""From the doctype to the title: no script, no font and no picture comes from anywhere else."""

STYLE = r""":root { --paper: #f4f6f8; --card: #ffffff; --text: #1c2733; --faint: #5c6773; --line: #e3e7eb; --accent: #0072b2;
  --good: #00734f; --bad: #b04a00; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0f1318; --card: #171c23; --text: #e6e9ed; --faint: #9aa5b1; --line: #2b323b; --accent: #56b4e9;
    --good: #35c79b; --bad: #f08a4b; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 2.2rem 1.2rem 4rem; }
header p { margin: 0; color: var(--faint); }
h1 { margin: .1rem 0 .2rem; font-size: 1.8rem; line-height: 1.2; letter-spacing: -.01em; }
h2 { margin: 0 0 .7rem; font-size: 1.05rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.2rem 1.4rem;
  margin-top: 1.1rem; }
.verdict { border-left: 4px solid var(--accent); }
.verdict p { margin: .25rem 0; font-size: 1.12rem; }
.verdict p.same { font-size: 1rem; color: var(--faint); }
.badge { display: inline-block; padding: 0 .6em; border: 1px solid; border-radius: 99px; font-size: .85rem;
  color: var(--bad); }
.badge.finished { color: var(--good); }
img { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: .32rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; text-align: left; }
thead th { color: var(--faint); font-weight: 500; font-size: .88rem; }
tbody th { font-weight: 600; }
tbody tr:last-child > * { border-bottom: 0; }
table.words td { text-align: left; white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
table.words th { text-align: left; vertical-align: top; font-weight: 500; color: var(--faint); }
.note { margin: .6rem 0 0; color: var(--faint); font-size: .88rem; }
details + details { margin-top: .8rem; }
summary { cursor: pointer; font-weight: 600; }
details[open] > summary { margin-bottom: .6rem; }
pre { margin: 0; padding: .7rem .9rem; overflow-x: auto; background: var(--paper); border-radius: 6px; }
pre, code { font: .88rem/1.5 ui-monospace, monospace; }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""
"""The content of the style element."""
