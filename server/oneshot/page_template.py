"""The page of a one-shot aggregation, as a Jinja template; `server.oneshot.page` says what it is given."""

# ruff: noqa: E501
from server.page_parts import HEAD, STYLE, TABLE

PAGE = (
    TABLE
    + r"""{% macro figure(png, alt, caption) %}
<figure>
<div class="wide"><img alt="{{ alt }}" src="data:image/png;base64,{{ png }}"></div>
<figcaption class="note">{{ caption }} Made by <code>{{ command }}</code></figcaption>
</figure>
{% endmacro %}
"""
    + HEAD
    + r"""<title>{{ title }} · FedArena</title>
<style>
"""
    + STYLE
    + r"""section p { margin: .5rem 0; max-width: 46em; }
figure { margin: .8rem 0 0; }
figure img { background: #fff; border-radius: 6px; min-width: 480px; }
.wide + details, pre + details { margin-top: 1rem; }
figcaption code { overflow-wrap: anywhere; }
h3 { margin: 1.2rem 0 .4rem; font-size: 1rem; }
table.explained th, table.explained td { vertical-align: top; text-align: left; }
table.explained td:last-child { white-space: normal; min-width: 17em; overflow-wrap: anywhere; }
</style>
</head>
<body>
<main>
<header>
<p>FedArena · finished models, combined once</p>
<h1>{{ title }}</h1>
<p>{{ subtitle }}</p>
</header>

<section class="verdict">
{% for line in verdict %}
<p>{{ line }}</p>
{% endfor %}
</section>

<section>
<h2>Every method at a glance</h2>
{{ figure(overview, "Test accuracy of every method; the numbers are in the table below.", "Test accuracy; " ~ seeds ~ (". A dot is one seed, a bar the mean." if many else ".")) }}
</section>

<section>
<h2>The table</h2>
{{ table(methods) }}
<p class="note">{{ seeds | capitalize }}. Made by <code>{{ command }}</code></p>
<h3>What each line is</h3>
<div class="wide"><table class="words">
{% for method, what in words.items() %}
<tr><th scope="row">{{ method }}</th><td>{{ what }}</td></tr>
{% endfor %}
</table></div>
{% if by_seed %}
<details>
<summary>Every seed</summary>
{{ table(by_seed) }}
</details>
{% endif %}
</section>

<section>
<h2>Why: the models</h2>
<p>There are {{ count }} finished models of one architecture{{ " for each seed" if many }}. {{ began }} Each learned from its own data only, and was tested as it is: {{ local_span }}.</p>
{% if names %}
{{ table(names, "explained") }}
{% endif %}
</section>

<section>
<h2>Why: {{ "the plain average fails" if fails else "what the plain average does" }}</h2>
<p>A hidden unit is one filter or one neuron inside a network. Nothing in the training says which unit has to learn what: one network may look for a vertical stroke with its unit 3, another one with its unit 11. To a network the order means nothing, as long as the next layer reads the units in the same order.</p>
<p>Think of {{ count }} kitchens with the same drawers. Every cook knows what is where, so each kitchen works. But put together what lies in drawer 3 of all of them, and you may get a bit of knife, a bit of spoon and a bit of tea towel: no use to any cook.</p>
<p>{{ average }}</p>
{{ figure(barriers, "Accuracy and loss along the line between two models, before and after matching.", barrier_caption) }}
<p>{{ barrier_text }}</p>
</section>

<section>
<h2>How far apart the models are</h2>
{{ table(geometry) }}
<p>{{ geometry_text }}</p>
<p class="note">{{ seeds | capitalize }}{{ "; means over the seeds" if many }}. Made by <code>{{ command }}</code></p>
</section>

<section>
<h2>What matching does</h2>
<p>It renames the drawers. For each hidden layer, every unit of one model is compared with every unit of the mean of the other models, by all the weights that lead into it and out of it; the best assignment of all units at once is found exactly, and the model's units are put into that order. This goes from layer to layer and from model to model until nothing changes; local-0 keeps its order. A network with its units in another order computes the same function, so no model gets worse by it. Only their mean changes. (Permutation weight matching: Ainsworth et al. 2023, arXiv:2209.04836.)</p>
<p>{{ matching_text }}</p>
{% if filters %}
{{ figure(filters, "The same filters of every model before and after matching.", filters_caption) }}
{% else %}
<p>{{ filters_caption }}</p>
{% endif %}
{% for note in notes %}
<p class="note">{{ note }}</p>
{% endfor %}
</section>

<section>
<h2>Calibration and distillation</h2>
<p>Where matched units agree only in part, their mean reacts more weakly than each of them did, and the signal fades from layer to layer. Calibration shows unlabelled images to the merged model and sets the mean and the spread of every unit's activation to the average of the matched models' (REPAIR: Jordan et al. 2023, arXiv:2211.08403). {{ calibrated_text }}</p>
<p>Distillation lets the calibrated model learn, on the same images, to answer as the ensemble of all models does (FedDF: Lin et al. 2020, arXiv:2006.07242). No label is read by either of them. {{ distilled_text }}</p>
</section>

<section>
<h2>FedNova, and what fednova-anchored really is</h2>
<p>FedNova (Wang et al. 2020, arXiv:2007.07481) divides the way that each model went from the <em>common start</em> by the amount of work it did on that way. {{ fednova_text }}</p>
<p>{{ anchored_text }}</p>
</section>

<section>
<h2>What the ensemble costs</h2>
<p>The ensemble asks all {{ count }} models and averages their logits{{ ensemble_text }}. It is what a single combined model tries to reach. It is not one model: every prediction takes {{ count }} times the compute and {{ count }} times the memory, and all {{ count }} models must be handed out.</p>
</section>

{% if seed_project %}
<section>
<h2>The seed project's table beside this one</h2>
<p>The project that FedArena grew from trained five local models independently, averaged them once, and reported that three of its four global models fell to 51-55 % while FedNova stood at 94 %. This run does the same with {{ count }} models. Its data, models and training are not the seed project's, so compare the pattern and not the decimals: how deep an average falls depends on all three.</p>
{{ table(seed_project, "explained") }}
<p class="note">This run: {{ seeds }}. Made by <code>{{ command }}</code></p>
</section>
{% endif %}

<section>
<h2>Run it again</h2>
<pre>{{ command }}</pre>
{% if seconds.rows %}
<details>
<summary>Where the time went</summary>
{{ table(seconds) }}
</details>
{% endif %}
<p class="note">All numbers: oneshot.csv; the models: models/.</p>
</section>
</main>
</body>
</html>
"""
)
