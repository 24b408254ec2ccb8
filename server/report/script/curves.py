"""Mean and 95 % interval over seeds, round by round; a panel for each scenario."""

# ruff: noqa: E501
SOURCE = r"""
const curves = { metric: "accuracy", log: true, band: true };
const PANEL = 270;
const ABOVE = 38;
const BELOW = 46; // pixels: a panel's height, room for its title, room for its ticks
const LEFT = 58;
const BETWEEN = 62;

function availableMetrics() {
  const names = new Set(
    report.scenarios.flatMap((scenario) => scenario.series.flatMap((one) => Object.keys(one.metrics))),
  );
  return Object.keys(METRICS).filter((name) => names.has(name));
}

// The rounds in which there is a value; others are gaps, unless clients are asked in some rounds only.
function pointsOf(one, metricName) {
  const series = one.metrics[metricName];
  const rounds = series.mean.map((_, round) => round);
  const kept = METRICS[metricName].sparse ? rounds.filter((round) => exists(series.mean[round])) : rounds;
  return kept.map((round) => ({
    round,
    mean: series.mean[round],
    half: series.half[round],
    seeds: series.n[round],
  }));
}

function curveOf(one, scenario, axes, scale, ink, first) {
  const metric = METRICS[curves.metric];
  const points = pointsOf(one, curves.metric);
  const strategy = one.strategy;
  return {
    type: "scatter",
    mode: "lines+markers",
    ...axes,
    name: plain(nameOf(strategy)),
    legendgroup: String(strategy),
    showlegend: first,
    x: points.map((point) => point.round),
    y: points.map((point) => (exists(point.mean) ? scale.to(point.mean) : null)),
    text: points.map((point) => told(metric, point.mean, point.half)),
    hovertemplate: `${plain(nameOf(strategy))}: <b>%{text}</b><extra></extra>`,
    line: lineLook(strategy, scenario.same),
    marker: markerLook(strategy, points.length, ink),
    meta: { strategy },
  };
}

// A line of the paper's colour around a ribbon that lies on another.
function seamOf(curve, ink) {
  return {
    ...curve,
    mode: "lines",
    hoverinfo: "skip",
    hovertemplate: undefined,
    showlegend: false,
    meta: {},
    line: { ...curve.line, color: ink.paper, width: curve.line.width + 1.4 },
  };
}

function bandOf(one, axes, scale) {
  const points = pointsOf(one, curves.metric).filter((point) => exists(point.half));
  const edge = (point, sign) => scale.to(point.mean + sign * point.half);
  const back = [...points].reverse();
  return {
    type: "scatter",
    mode: "lines",
    ...axes,
    fill: "toself",
    hoverinfo: "skip",
    showlegend: false,
    legendgroup: String(one.strategy),
    meta: { band: one.strategy },
    x: [...points, ...back].map((point) => point.round),
    y: [...points.map((point) => edge(point, 1)), ...back.map((point) => edge(point, -1))],
    fillcolor: faded(report.strategies[one.strategy].colour, 0.14),
    line: { width: 0 },
  };
}

function curvesFigure(ink, width, exported) {
  const metric = METRICS[curves.metric];
  const scale = scaleOf(metric, curves.log);
  const panels = report.scenarios.filter((scenario) => scenario.series.some((one) => one.metrics[curves.metric]));
  const columns = panels.length > 1 && width >= 760 ? 2 : 1;
  const rows = Math.ceil(panels.length / columns);
  const legend = exported ? 30 + 22 * Math.ceil(report.strategies.length / 4) : 0;
  const height = rows * (ABOVE + PANEL + BELOW) + legend;
  const layout = layoutOf(ink, width, height, {
    hovermode: "x unified",
    annotations: [],
    margin: { l: 0, r: 0, t: 0, b: 0 },
    showlegend: exported,
    legend: { orientation: "h", x: 0.05, y: legend / height, yanchor: "top", font: { size: 12 } },
  });
  const bands = [];
  const lines = [];
  const named = new Set();
  panels.forEach((scenario, i) => {
    const key = i ? String(i + 1) : "";
    const axes = { xaxis: `x${key}`, yaxis: `y${key}` };
    const here = scenario.series.filter((one) => shown(one.strategy) && one.metrics[curves.metric]);
    for (const one of here) {
      if (curves.band) bands.push(bandOf(one, axes, scale));
      const curve = curveOf(one, scenario, axes, scale, ink, !named.has(one.strategy));
      lines.push(...(isInner(one.strategy, scenario.same) ? [seamOf(curve, ink)] : []), curve);
      named.add(one.strategy);
    }
    place(layout, key, { i, columns, width, height }, axesOf(ink, scenario, here, metric, scale, key));
    layout.annotations.push(titleOf(scenario, metric, axes, ink));
  });
  return { data: [...bands, ...lines], layout };
}

function axesOf(ink, scenario, here, metric, scale, key) {
  const points = here.flatMap((one) => pointsOf(one, curves.metric)).filter((point) => exists(point.mean));
  const ends = curves.band ? points.filter((point) => exists(point.half)) : [];
  const limits = limitsOf(
    scale,
    points.map((point) => point.mean),
    ends.flatMap((point) => [point.mean - point.half, point.mean + point.half]),
  );
  const last = Math.max(1, ...scenario.series.map((one) => one.metrics.accuracy.mean.length - 1));
  const x = {
    range: [-0.02 * last, 1.02 * last],
    tickformat: "d",
    anchor: `y${key}`,
    title: "round",
    automargin: false,
    dtick: last < 10 ? 1 : undefined,
    hoverformat: "d",
    unifiedhovertitle: { text: "round %{x}" },
  };
  return {
    x: axisOf(ink, x),
    y: valueAxis(ink, metric, scale, limits, { anchor: `x${key}`, automargin: false }),
  };
}

// Panels from left to right and from top to bottom; Plotly counts in shares from the lower left.
function place(layout, key, { i, columns, width, height }, axes) {
  const wide = (width - LEFT - 10 - (columns - 1) * BETWEEN) / columns;
  const left = LEFT + (i % columns) * (wide + BETWEEN);
  const top = Math.floor(i / columns) * (ABOVE + PANEL + BELOW) + ABOVE;
  layout[`xaxis${key}`] = { ...axes.x, domain: [left / width, (left + wide) / width] };
  layout[`yaxis${key}`] = { ...axes.y, domain: [1 - (top + PANEL) / height, 1 - top / height] };
}

function titleOf(scenario, metric, { xaxis, yaxis }, ink) {
  const unit = metric.unit && metric.unit !== "%" ? `, ${metric.unit}` : "";
  const text = `<b>${plain(scenario.name)}</b>  ${metric.label.toLowerCase()}${unit}`;
  return {
    text,
    xref: `${xaxis} domain`,
    yref: `${yaxis} domain`,
    x: 0,
    y: 1,
    xanchor: "left",
    yanchor: "bottom",
    yshift: 6,
    showarrow: false,
    font: { size: 13, color: ink.text },
  };
}

// What cannot be seen, or could be missed.
function curvesSaid() {
  const metric = METRICS[curves.metric];
  const said = [];
  if (metric.about) said.push(metric.about);
  for (const scenario of report.scenarios) {
    for (const group of scenario.same) {
      const names = group.filter(shown).map(nameOf);
      if (names.length > 1) {
        said.push(
          `${scenario.name}: ${names.join(", ")} are the same to the bit; ${names[0]} is the widest line, below the others.`,
        );
      }
    }
    const lost = scenario.series.filter((one) => shown(one.strategy) && one.diverged);
    if (lost.length) {
      const told = lost.map((one) => `${nameOf(one.strategy)} (${one.diverged} of ${scenario.seeds.length})`);
      said.push(`${scenario.name}: diverged runs: ${told.join(", ")}.`);
    }
  }
  if (curves.metric === "loss") said.push("There is no line where a loss is not finite.");
  const several = report.scenarios.some((scenario) => scenario.seeds.length > 1);
  if (several && curves.band)
    said.push("Band: 95 % interval of the mean over seeds; axes follow the lines, wide bands are cut off.");
  return said.join(" ");
}

function curvesRows() {
  const rows = [["scenario", "strategy", "metric", "round", "mean", "low", "high", "seeds"]];
  for (const scenario of report.scenarios) {
    for (const one of scenario.series) {
      for (const metric of Object.keys(one.metrics)) {
        for (const { round, mean, half, seeds } of pointsOf(one, metric)) {
          const ends = exists(half)
            ? [mean - half, mean + half].map((end) => Number(end.toPrecision(6)))
            : [null, null];
          rows.push([scenario.name, nameOf(one.strategy), metric, round, mean, ...ends, seeds]);
        }
      }
    }
  }
  return rows;
}

figures.set("curves", {
  build: curvesFigure,
  rows: curvesRows,
  say: curvesSaid,
  controls: () => [
    choice(
      "Metric",
      availableMetrics().map((name) => [name, METRICS[name].label]),
      curves.metric,
      (name) => {
        curves.metric = name;
        redraw("curves");
      },
    ),
    check("log scale", curves.log, (on) => {
      curves.log = on;
      redraw("curves");
    }),
    ...(report.scenarios.some((scenario) => scenario.seeds.length > 1)
      ? [
          check("95 % interval", curves.band, (on) => {
            curves.band = on;
            redraw("curves");
          }),
        ]
      : []),
  ],
});
"""
