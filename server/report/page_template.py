"""The page of report.html, as a Jinja template; in Python, so that it travels in Flower's app bundles, too."""

# ruff: noqa: E501
from server.page_parts import DOCUMENT, TABLE

PAGE = (
    TABLE
    + DOCUMENT
    + r"""{% macro figure(id, about) %}
<figure class="figure needs-script" data-figure="{{ id }}" aria-label="{{ about }}">
<div class="controls"></div>
<div class="plot"></div>
<figcaption class="note said" aria-live="polite"></figcaption>
<div class="exports"></div>
</figure>
{% endmacro %}
{% macro facts(values) %}
<div class="wide"><table class="words">
{% for key, value in values.items() %}
<tr><th scope="row">{{ key }}</th><td>{{ value }}</td></tr>
{% endfor %}
</table></div>
{% endmacro %}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {{ scripts.allowed | safe if scripts else "'none'" }}">
<title>{{ title }} · FedArena</title>
<style>
{{ style | safe }}</style>
</head>
<body>
<main>
<header>
<div class="masthead">
<p>FedArena {{ version }} · {{ folder }}</p>
{% if scripts %}
<button type="button" id="theme" class="needs-script quiet">Theme: auto</button>
{% endif %}
</div>
<h1>{{ title }}</h1>
<p>{% if subtitle %}{{ subtitle }} · {% endif %}<span class="badge {{ status }}">{{ status }}</span></p>
</header>

<section class="verdict" id="verdict">
{% for line in verdict %}
<p>{% if line[0] %}<strong>{{ line[0] }}:</strong> {% endif %}{{ line[1] | replace(" %", "\u00a0%") }}</p>
{% else %}
<p>No model was tested yet.</p>
{% endfor %}
{% for line in same %}
<p class="same">{{ line }}</p>
{% endfor %}
</section>

{% if curves %}
<div class="bar needs-script" role="group" aria-label="Strategies that are shown">
<nav aria-label="Sections">
<a href="#curves">Curves</a> <a href="#strategies">Strategies</a> {% if comparisons.rows %}<a href="#differences">Differences</a>{% endif %}

<a href="#clients">Clients</a> <a href="#data">Data</a> <a href="#cost">Cost</a> <a href="#again">Run it again</a>
</nav>
<div class="chips" id="chips"></div>
</div>

<section id="curves">
<h2>Round by round</h2>
{{ figure("curves", "Every strategy's curve over the rounds, a panel for each scenario") }}
<noscript><p class="note">Scripts are off: these are pictures and tables; with scripts the curves can be explored.</p></noscript>
<p class="note needs-script" id="trouble" role="alert" hidden></p>
<img class="static" alt="Test accuracy and test loss per round of every strategy; the numbers are in the table below." src="data:image/png;base64,{{ curves }}">
<details>
<summary>Test accuracy in %{{ ", mean over seeds" if seeds > 1 }}, as a table</summary>
{% for scenario, data in rounds.items() %}
{% if rounds | length > 1 %}<h3>{{ scenario }}</h3>{% endif %}
{{ table(data) }}
{% endfor %}
</details>
</section>

<section id="strategies">
<h2>Strategies after the last round</h2>
{% if scenarios | length > 1 %}
{{ figure("heatmap", "Final test accuracy of every strategy in every scenario") }}
{% endif %}
{{ table(summary, "first-wraps") }}
<p class="note">sec: wall seconds of the rounds, which overlap with those of the other strategies. up, dn: model arrays from and to the clients.</p>
<details {{ "open" if targets.rows | length <= most_open }}>
<summary>Rounds to the target</summary>
{{ table(targets, "names-" ~ names) }}
</details>
</section>

{% if comparisons.rows %}
<section id="differences">
<h2>Paired differences</h2>
{{ figure("differences", "The difference of every pair of strategies with its interval") }}
<details>
<summary>All pairs and metrics, as a table</summary>
{{ table(comparisons, "verdicts names-" ~ (names + 2)) }}
</details>
</section>
{% endif %}

<section id="clients">
<h2>Clients</h2>
{% if measured %}
{{ figure("clients", "Accuracy of the global model on each client's own training data") }}
<div class="needs-script" id="client-table"></div>
{% if lines_left %}
<p class="note">{{ "{:,}".format(lines_left) }} more lines of clients, of other seeds first and then of better ones, are in local.csv.</p>
{% endif %}
{% else %}
<p class="note">No client has tested the global model on its own training data yet.</p>
{% endif %}
{% if fairness.rows %}
<details {{ "open" if fairness.rows | length <= most_open }}>
<summary>Accuracy on training data, and drift, of each strategy's clients</summary>
{{ table(fairness, "first-wraps") }}
</details>
{% endif %}
{% if refusals.rows %}
<h3>Clients that failed or were rejected</h3>
{{ table(refusals, "words refusals") }}
{% endif %}
</section>

<section id="data">
<h2>Who holds which labels</h2>
{% if shards %}
{{ figure("partition", "Examples of each class that each client holds") }}
<details>
<summary>Shards, as a table</summary>
{% for scenario, data in shards.items() %}
{% if shards | length > 1 %}<h3>{{ scenario }}</h3>{% endif %}
{{ table(data) }}
{% endfor %}
</details>
{% else %}
<p class="note">The server of real clients does not see their labels.</p>
{% endif %}
{% if written %}
<details>
<summary>Scenarios, with all their values</summary>
{{ facts(written) }}
</details>
{% endif %}
</section>

<section id="cost">
<h2>Accuracy against cost</h2>
{{ figure("cost", "Test accuracy against seconds or bytes") }}
<p class="note">Seconds are wall seconds of a strategy's rounds while others use the same machine; bytes are those of model arrays. The totals are in the table of strategies.</p>
</section>
{% endif %}

<section id="again">
<h2>Run it again</h2>
{% for name, command in commands.items() %}
{% if commands | length > 1 %}<h3>{{ name }}</h3>{% endif %}
<pre tabindex="0">{{ command }}</pre>
{% endfor %}
{% if weights.rows %}
<details>
<summary>Final weights: SHA-256 of each contestant</summary>
{{ table(weights, "words") }}
</details>
{% endif %}
<details>
<summary>Data: SHA-256 of the shards</summary>
{{ facts(data) }}
</details>
<details>
<summary>Configuration</summary>
{{ facts(config) }}
</details>
<details>
<summary>Versions</summary>
{% for name, values in versions.items() %}
{% if versions | length > 1 %}<h3>{{ name }}</h3>{% endif %}
{{ facts(values) }}
{% endfor %}
</details>
{% if epsilon %}
<details>
<summary>Differential privacy: epsilon spent, by client</summary>
{{ facts(epsilon) }}
</details>
{% endif %}
<p class="note">All numbers: rounds.csv, clients.csv, local.csv, comparison.csv, targets.csv, run.json; the final models: models/.</p>
</section>
</main>
{% if scripts %}
<script type="application/json" id="numbers">{{ scripts.data }}</script>
<script type="text/plain" id="plotly">{{ scripts.plotly }}</script>
<script>{{ scripts.own }}</script>
{% endif %}
</body>
</html>
"""
)
