"""Accuracy against what it cost: a line from round to round, the last round marked."""

SOURCE = r"""
const cost = { kind: "seconds", log: true };
const COSTS = {
  seconds: { label: "Seconds", unit: "s", of: (costs) => costs.seconds },
  up: { label: "Bytes from clients", unit: "B", of: (costs) => costs.bytes_up },
  down: { label: "Bytes to clients", unit: "B", of: (costs) => costs.bytes_down },
  both: {
    label: "Bytes, both ways",
    unit: "B",
    of: (costs) => costs.bytes_up.map((up, i) => (exists(up) ? up + costs.bytes_down[i] : null)),
  },
};
const SIZES = [
  [1e9, "GB"],
  [1e6, "MB"],
  [1e3, "kB"],
  [0, "B"],
];

function costFigure(ink, width, exported) {
  const kind = COSTS[cost.kind];
  const scale = scaleOf(METRICS.accuracy, cost.log);
  const drawn = scenarioNow().series.filter((one) => shown(one.strategy));
  const [size, unit] = sizeOf(kind, drawn);
  const data = drawn.map((one) => costLine(one, kind, scale, size, unit, ink));
  const means = drawn.flatMap((one) => one.metrics.accuracy.mean).filter(exists);
  const legend = exported ? 30 + 22 * Math.ceil(drawn.length / 4) : 0;
  const height = 380 + legend;
  const layout = layoutOf(ink, width, height, {
    margin: { l: 58, r: 16, t: 14, b: 48 + legend },
    hovermode: "closest",
    showlegend: exported,
    legend: { orientation: "h", x: 0, y: -50 / (height - 62 - legend), yanchor: "top" },
    xaxis: axisOf(ink, {
      title:
        kind.label.toLowerCase() +
        (unit === "s" ? "" : `, ${unit}`) +
        (scenarioNow().seeds.length > 1 ? ", mean over seeds" : ""),
      rangemode: "tozero",
    }),
    yaxis: valueAxis(ink, METRICS.accuracy, scale, limitsOf(scale, means, [])),
  });
  return { data, layout };
}

function sizeOf(kind, drawn) {
  if (kind.unit === "s") return [1, "s"];
  const most = Math.max(0, ...drawn.flatMap((one) => kind.of(one.cost)).filter(exists));
  const [size, unit] = SIZES.find(([least]) => most >= least);
  return [size || 1, unit];
}

function costLine(one, kind, scale, size, unit, ink) {
  const spent = kind.of(one.cost);
  const { mean, half } = one.metrics.accuracy;
  const rounds = mean.map((_, round) => round).filter((round) => exists(mean[round]) && exists(spent[round]));
  const { colour, symbol } = report.strategies[one.strategy];
  const text = (round) =>
    `<b>${plain(nameOf(one.strategy))}</b>, round ${round}<br>${told(METRICS.accuracy, mean[round], half[round])}` +
    `<br>${Number((spent[round] / size).toPrecision(4))} ${unit}`;
  return {
    type: "scatter",
    mode: "lines+markers",
    name: plain(nameOf(one.strategy)),
    x: rounds.map((round) => spent[round] / size),
    y: rounds.map((round) => scale.to(mean[round])),
    text: rounds.map(text),
    hovertemplate: "%{text}<extra></extra>",
    line: lineLook(one.strategy, scenarioNow().same),
    marker: {
      color: colour,
      symbol,
      opacity: 1,
      size: rounds.map((_, i) => (i === rounds.length - 1 ? 13 : 4)),
      line: { color: ink.paper, width: 1 },
    },
  };
}

function costSaid() {
  return `${scenarioNow().name}: a point is a round; the large mark is the last one.`;
}

function costRows() {
  const rows = [["scenario", "strategy", "round", "accuracy", "seconds", "bytes_up", "bytes_down"]];
  for (const scenario of report.scenarios) {
    for (const one of scenario.series) {
      one.metrics.accuracy.mean.forEach((mean, round) => {
        const { seconds, bytes_up: up, bytes_down: down } = one.cost;
        rows.push([scenario.name, nameOf(one.strategy), round, mean, seconds[round], up[round], down[round]]);
      });
    }
  }
  return rows;
}

figures.set("cost", {
  title: () => `${scenarioNow().name}: test accuracy against cost`,
  build: costFigure,
  rows: costRows,
  say: costSaid,
  controls: () => [
    ...scenarioChoice(),
    choice(
      "Cost",
      Object.entries(COSTS).map(([name, { label }]) => [name, label]),
      cost.kind,
      (name) => {
        cost.kind = name;
        redraw("cost");
      },
    ),
    check("log scale", cost.log, (on) => {
      cost.log = on;
      redraw("cost");
    }),
  ],
});
"""
