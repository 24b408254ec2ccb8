"""The page of report.html, as a Jinja template; in Python, so that it travels in Flower's app bundles, too."""

# ruff: noqa: E501
PAGE = r"""{% macro table(data, class="") %}
<div class="wide"><table class="{{ class }}">
<thead><tr>{% for cell in data.headers %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in data.rows %}
<tr>{% for cell in row %}{% if loop.first %}<th scope="row">{{ cell }}</th>{% else %}<td>{{ cell }}</td>{% endif %}{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% if data.note %}<p class="note">{{ data.note }}</p>{% endif %}
{% endmacro %}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }} · FedArena</title>
<style>
:root { --paper: #f4f6f8; --card: #ffffff; --text: #1c2733; --faint: #5c6773; --line: #e3e7eb; --accent: #0072b2;
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
</style>
</head>
<body>
<main>
<header>
<p>FedArena {{ version }} · {{ folder }}</p>
<h1>{{ title }}</h1>
<p>{% if subtitle %}{{ subtitle }} · {% endif %}<span class="badge {{ status }}">{{ status }}</span></p>
</header>

<section class="verdict">
{% for line in verdict %}
<p>{{ line | replace(" %", "\u00a0%") }}</p>
{% else %}
<p>No model was tested yet.</p>
{% endfor %}
{% for line in same %}
<p class="same">{{ line }}</p>
{% endfor %}
</section>

{% if curves %}
<section>
<picture>
<source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{{ curves.dark }}">
<img alt="Test accuracy and test loss per round of every strategy; the numbers are in the tables below." src="data:image/png;base64,{{ curves.light }}">
</picture>
</section>

<section>
<h2>Strategies</h2>
{{ table(summary) }}
<p class="note">sec: wall seconds of the rounds, which overlap with those of the other strategies. up, dn: model arrays from and to the clients.</p>
</section>

<section>
<details {{ "open" if rounds.values() | map(attribute="rows") | map("length") | max < 25 }}>
<summary>Round by round: test accuracy in %{{ ", mean over seeds" if seeds > 1 }}</summary>
{% for scenario, data in rounds.items() %}
{% if rounds | length > 1 %}<p class="note">{{ scenario }}</p>{% endif %}
{{ table(data) }}
{% endfor %}
</details>
</section>
{% endif %}

{% if failures.rows %}
<section>
<h2>Clients that failed or were rejected</h2>
{{ table(failures, "words") }}
{% if failures_left %}<p class="note">{{ failures_left }} more are in clients.csv.</p>{% endif %}
</section>
{% endif %}

<section>
<h2>Run it again</h2>
<pre>{{ command }}</pre>
</section>

<section>
{% if shards %}
<details>
<summary>Shards{% if p_value is not none %}: chi-square p = {{ "%.3g" | format(p_value) }} for equal shares of labels{% endif %}</summary>
{{ table(shards) }}
</details>
{% endif %}
{% for name, values in facts.items() %}
<details>
<summary>{{ name }}</summary>
<div class="wide"><table class="words">
{% for key, value in values.items() %}
<tr><th scope="row">{{ key }}</th><td>{{ value }}</td></tr>
{% endfor %}
</table></div>
</details>
{% endfor %}
<details>
<summary>Final weights</summary>
<div class="wide"><table class="words">
<thead><tr><th scope="col">contestant</th><th scope="col">rounds</th><th scope="col">ended</th><th scope="col">SHA-256</th></tr></thead>
{% for key, result in results.items() %}
<tr><th scope="row">{{ key }}</th><td>{{ result.get("rounds", "") }}</td><td>{{ result.get("ended", "") }}</td><td><code>{{ result.get("sha256", "") }}</code></td></tr>
{% endfor %}
</table></div>
</details>
<p class="note">All numbers: rounds.csv, clients.csv, run.json; the final models: models/.</p>
</section>
</main>
</body>
</html>
"""
