"""What the interactive page has beside `server.page_parts.STYLE`, which has the colours and tables."""

STYLE = r"""
:root[data-theme="light"] { color-scheme: light; --paper: #f4f6f8; --card: #ffffff; --text: #1c2733;
  --faint: #5c6773; --line: #e3e7eb; --accent: #0072b2; --good: #00734f; --bad: #b04a00; }
:root[data-theme="dark"] { color-scheme: dark; --paper: #0f1318; --card: #171c23; --text: #e6e9ed; --faint: #9aa5b1;
  --line: #2b323b; --accent: #56b4e9; --good: #35c79b; --bad: #f08a4b; }
.needs-script { display: none; }
.js .needs-script { display: block; }
.js .needs-script[hidden] { display: none; }
.js .static { display: none; }
.static { border-radius: 8px; background: #fff; }
.masthead { display: flex; flex-wrap: wrap; gap: .2rem 1rem; justify-content: space-between; align-items: baseline; }
.masthead p { overflow-wrap: anywhere; }
h1, header p { overflow-wrap: anywhere; }
h3 { margin: 1.4rem 0 .5rem; font-size: .95rem; overflow-wrap: anywhere; }
section { scroll-margin-top: 7.5rem; }
.verdict { scroll-margin-top: 1rem; }
.verdict p { overflow-wrap: break-word; }
a { color: var(--accent); }
button, select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 7px; padding: .2rem .6rem; cursor: pointer; }
button:hover, select:hover { border-color: var(--faint); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 4px; }
.quiet { color: var(--faint); font-size: .85rem; padding: .1rem .6rem; }

.bar { position: sticky; top: 0; z-index: 5; margin-top: 1.1rem; padding: .55rem 1.4rem .65rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; box-shadow: 0 4px 14px rgb(0 0 0 / .07); }
.bar nav { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin-bottom: .45rem; font-size: .88rem; }
.bar nav a { color: var(--faint); text-decoration: none; }
.bar nav a:hover { color: var(--text); text-decoration: underline; }
.chips { display: flex; flex-wrap: wrap; gap: .4rem; }
.chip { display: inline-flex; align-items: center; gap: .45rem; padding: .12rem .65rem .12rem .5rem;
  border-radius: 99px; font-size: .9rem; max-width: 100%; }
.chip span { overflow-wrap: anywhere; text-align: left; }
.chip svg { flex: none; }
.chip[aria-pressed="false"] { color: var(--faint); background: transparent; border-style: dashed; }
.chip[aria-pressed="false"] svg { opacity: .25; }
.chip[aria-pressed="false"] span { text-decoration: line-through; }

.figure { margin: 0 0 1rem; }
.controls { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; align-items: center; margin-bottom: .4rem;
  font-size: .9rem; }
.controls label { display: inline-flex; align-items: center; gap: .45rem; max-width: 100%; }
.controls .name { color: var(--faint); }
.controls select { max-width: 16rem; min-width: 0; text-overflow: ellipsis; }
.controls input { accent-color: var(--accent); width: 1rem; height: 1rem; margin: 0; }
.plot { min-width: 0; overflow: hidden; }
.exports { display: flex; gap: .4rem; margin-top: .4rem; }
.exports button { font-size: .78rem; color: var(--faint); padding: .05rem .5rem; }
.said:empty { display: none; }
details { margin-top: .9rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
details .wide, #client-table .wide { max-height: 36rem; overflow: auto; }
.wide thead th { position: sticky; top: 0; background: var(--card); }
table.first-wraps th:first-child { white-space: normal; min-width: 9rem; overflow-wrap: anywhere; }
.names-2 tr > :nth-child(-n+2), .names-3 tr > :nth-child(-n+3), .names-4 tr > :nth-child(-n+4) { text-align: left; }
.verdicts tr > :last-child { text-align: left; }
table.refusals td { overflow-wrap: break-word; white-space: nowrap; }
table.refusals td:nth-child(3), table.refusals td:last-child { white-space: normal; min-width: 8rem; }
.refusals th { white-space: nowrap; }
tr.ignored > * { color: var(--faint); }

@media (max-width: 700px) {
  main { padding: 1rem .6rem 3rem; }
  section { padding: 1rem .8rem; scroll-margin-top: 1rem; }
  h1 { font-size: 1.4rem; }
  .bar { position: static; padding: .6rem .8rem; }
  .verdict p { font-size: 1.03rem; }
}
@media print {
  :root, :root[data-theme] { color-scheme: light; --paper: #ffffff; --card: #ffffff; --text: #1c2733; --faint: #5c6773;
    --line: #d5dade; --accent: #0072b2; --good: #00734f; --bad: #b04a00; }
  .js .bar nav, .js .exports, .js .controls, .js #theme, .js .all { display: none; }
  .bar { position: static; padding: 0; border: 0; box-shadow: none; }
  main { max-width: none; padding: 0; }
  section { border: 0; padding: .6rem 0; }
  .verdict { border-left: 4px solid var(--accent); padding-left: 1rem; border-radius: 0; }
  details .wide, #client-table .wide { max-height: none; }
  .wide { overflow: visible; }
  .wide thead th { position: static; }
  .figure { break-inside: avoid; }
  table { font-size: .8rem; }
  th, td { padding: .15rem .4rem; }
}
"""
"""The end of the content of the style element."""
