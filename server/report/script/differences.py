"""The paired difference of every pair of strategies with its interval: a forest plot."""

# ruff: noqa: RUF001
SOURCE = r"""
const differences = { metric: "test_accuracy" };
const VERDICTS = [
  { begins: "better", label: "a better", colour: "#009E73", symbol: "circle" },
  { begins: "worse", label: "a worse", colour: "#D55E00", symbol: "circle" },
  { begins: "no difference shown", label: "no difference shown", colour: "#0072B2", symbol: "diamond-open" },
  { begins: "not enough seeds", label: "not enough seeds", colour: "#8A8F98", symbol: "circle-open" },
];
const ROW = 26;

function pairsNow() {
  return scenarioNow().pairs.filter((pair) => pair.metric === differences.metric && shown(pair.a) && shown(pair.b));
}

function differencesFigure(ink, width, exported) {
  const metric = COMPARED[differences.metric];
  const pairs = pairsNow();
  const words = width >= 820; // room for the verdict beside each line
  const reach = Math.max(
    ...pairs
      .flatMap((pair) => [pair.low, pair.high, pair.difference])
      .filter(exists)
      .map((end) => Math.abs(metric.scale * end)),
    2 * metric.scale * report.margins[differences.metric],
  );
  const data = VERDICTS.map((verdict) => forestOf(verdict, pairs, metric));
  const legend = exported ? 46 : 0;
  const height = 74 + ROW * Math.max(pairs.length, 1) + legend;
  const label = (pair) =>
    width < 600
      ? `${plain(nameOf(pair.a))}<br>− ${plain(nameOf(pair.b))}`
      : `${plain(nameOf(pair.a))} − ${plain(nameOf(pair.b))}`;
  const layout = layoutOf(ink, width, width < 600 ? height + 12 * pairs.length : height, {
    margin: { l: 20, r: words ? 290 : 14, t: 28, b: 46 + legend },
    hovermode: "closest",
    showlegend: exported,
    legend: { orientation: "h", x: 0, y: -52 / (height - 74 - legend), yanchor: "top" },
    xaxis: axisOf(ink, {
      title: `a − b, ${metric.unit}`,
      range: [-1.06 * reach, 1.06 * reach],
      zeroline: true,
      zerolinecolor: ink.faint,
      zerolinewidth: 1.5,
    }),
    yaxis: axisOf(ink, {
      tickmode: "array",
      tickvals: pairs.map((_, i) => i),
      ticktext: pairs.map(label),
      range: [pairs.length - 0.4, -0.6],
      showgrid: false,
      ticks: "",
      tickfont: { color: ink.text, size: width < 600 ? 11 : 12.5 },
    }),
    shapes: [marginBand(metric, ink)],
    annotations: [
      ...sides(ink, differences.metric),
      ...(words ? pairs.map((pair, i) => besideLine(pair, i, ink)) : []),
    ],
  });
  return { data, layout };
}

function forestOf({ begins, label, colour, symbol }, pairs, metric) {
  const here = pairs
    .map((pair, i) => ({ pair, i }))
    .filter(({ pair }) => pair.verdict.startsWith(begins) && exists(pair.difference));
  const length = (pair, end) => (exists(pair[end]) ? Math.abs(metric.scale * (pair[end] - pair.difference)) : 0);
  return {
    type: "scatter",
    mode: "markers",
    name: label,
    marker: { color: colour, symbol, size: 10, line: { color: colour, width: 2 } },
    x: here.map(({ pair }) => metric.scale * pair.difference),
    y: here.map(({ i }) => i),
    error_x: {
      type: "data",
      symmetric: false,
      color: colour,
      thickness: 2,
      width: 5,
      array: here.map(({ pair }) => length(pair, "high")),
      arrayminus: here.map(({ pair }) => length(pair, "low")),
    },
    text: here.map(({ pair }) => pairHover(pair, metric)),
    hovertemplate: "%{text}<extra></extra>",
  };
}

// Within it a difference is not of interest.
function marginBand(metric, ink) {
  const margin = metric.scale * report.margins[differences.metric];
  return {
    type: "rect",
    layer: "below",
    xref: "x",
    yref: "paper",
    x0: -margin,
    x1: margin,
    y0: 0,
    y1: 1,
    line: { width: 0 },
    fillcolor: faded(ink.faint, 0.13),
  };
}

function sides(ink, metric) {
  const higher = metric === "test_accuracy";
  return [
    [0, "left", higher ? "← b better" : "← a better"],
    [1, "right", higher ? "a better →" : "b better →"],
  ].map(([x, anchor, text]) => ({
    text,
    x,
    xref: "paper",
    xanchor: anchor,
    y: 1,
    yref: "paper",
    yanchor: "bottom",
    yshift: 4,
    showarrow: false,
    font: { size: 12, color: ink.faint },
  }));
}

const pValue = (pair) => (exists(pair.p_adjusted) ? pText(pair.p_adjusted, 2) : "");

function besideLine(pair, i, ink) {
  const effect = exists(pair.effect) ? `g = ${pair.effect.toPrecision(2)}` : "";
  const [verdict] = pair.verdict.split(" (");
  const text = [`<b>${plain(verdict)}</b>`, pValue(pair), effect].filter(Boolean).join(" · ");
  return {
    text,
    x: 1,
    xref: "paper",
    xanchor: "left",
    xshift: 12,
    y: i,
    yref: "y",
    showarrow: false,
    font: { size: 12, color: ink.text },
  };
}

function pairHover(pair, metric) {
  const signed = (value) => (value > 0 ? "+" : "") + (metric.scale * value).toFixed(metric.digits);
  const lines = [
    `<b>${plain(nameOf(pair.a))} − ${plain(nameOf(pair.b))}</b>`,
    `${signed(pair.difference)} ${metric.unit}`,
  ];
  if (exists(pair.low)) lines.push(`interval ${signed(pair.low)} to ${signed(pair.high)}`);
  lines.push(
    plain(pair.verdict),
    [pValue(pair), exists(pair.effect) ? `Hedges' g = ${pair.effect.toPrecision(3)}` : "", `${pair.seeds} seeds`]
      .filter(Boolean)
      .join(", "),
  );
  return lines.join("<br>");
}

function differencesSaid() {
  const pairs = pairsNow();
  const scenario = scenarioNow();
  if (!pairs.length) return `Nothing to compare in ${scenario.name} with this metric and these strategies.`;
  const lost = pairs.filter((pair) => !exists(pair.difference));
  const said = [`After round ${scenario.last}, paired by seed. Grey: differences that are too small to matter.`];
  if (pairs.some((pair) => exists(pair.low)))
    said.push("An interval excludes 0 exactly where the adjusted p < 0.05.");
  if (pairs.every((pair) => pair.seeds === 1)) said.push("One seed: no interval, no test.");
  for (const pair of lost) said.push(`${nameOf(pair.a)} − ${nameOf(pair.b)}: not finite; ${pair.verdict}.`);
  return said.join(" ");
}

function differencesRows() {
  const columns = ["seeds", "mean_a", "mean_b", "difference", "low", "high", "effect", "p_adjusted", "verdict"];
  const rows = [["scenario", "round", "a", "b", "metric", ...columns]];
  for (const scenario of report.scenarios) {
    for (const pair of scenario.pairs) {
      rows.push([
        scenario.name,
        scenario.last,
        nameOf(pair.a),
        nameOf(pair.b),
        pair.metric,
        ...columns.map((name) => pair[name]),
      ]);
    }
  }
  return rows;
}

figures.set("differences", {
  title: () => {
    const { name, last } = scenarioNow();
    return `${name}: ${COMPARED[differences.metric].label.toLowerCase()} after round ${last}, paired differences`;
  },
  build: differencesFigure,
  rows: differencesRows,
  say: differencesSaid,
  controls: () => {
    const names = new Set(report.scenarios.flatMap((scenario) => scenario.pairs.map((pair) => pair.metric)));
    const options = Object.keys(COMPARED)
      .filter((name) => names.has(name))
      .map((name) => [name, COMPARED[name].label]);
    return [
      ...scenarioChoice(),
      choice("Metric", options, differences.metric, (name) => {
        differences.metric = name;
        redraw("differences");
      }),
    ];
  },
});
"""
