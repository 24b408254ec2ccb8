"""The page of report.html, as a Jinja template; in Python, so that it travels in Flower's app bundles, too."""

# ruff: noqa: E501
from server.page_parts import HEAD, STYLE, TABLE

PAGE = (
    TABLE
    + HEAD
    + r"""<title>{{ title }} · FedArena</title>
<style>
"""
    + STYLE
    + r"""</style>
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
)
