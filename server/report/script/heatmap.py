"""Final test accuracy of every strategy in every scenario, at a glance."""

SOURCE = r"""
function finalOf(scenario, strategy) {
  const one = scenario.series.find((series) => series.strategy === strategy);
  if (!one) return null;
  const { mean, half, n } = one.metrics.accuracy;
  const at = scenario.last;
  return { mean: mean[at], half: half[at], seeds: n[at], diverged: one.diverged };
}

function heatmapFigure(ink, width) {
  const strategies = report.strategies.map((_, i) => i).filter(shown);
  const cells = strategies.map((strategy) => report.scenarios.map((scenario) => finalOf(scenario, strategy)));
  const best = report.scenarios.map((_, k) => Math.max(...cells.map((row) => row[k]?.mean ?? -1)));
  const scale = scaleOf(METRICS.accuracy, true); // 97 % and 94 % differ by as much as 70 % and 40 %
  const most = Math.max(1, ...best.map(scale.place));
  const narrow = (width - 130) / report.scenarios.length < 86;
  const note = (cell, i, k) => {
    const text = cellText(cell, cell?.mean === best[k], narrow);
    return text ? [cellNote(k, i, text, scale.place(cell.mean) / most, ink, narrow ? 11 : 13)] : [];
  };
  const long = Math.max(
    ...report.scenarios.map((scenario) => wrapped(scenario.name, narrow ? 9 : 16).split("<br>").length),
  );
  const top = 12 + 15 * long;
  const data = [
    {
      type: "heatmap",
      x: report.scenarios.map((_, k) => k),
      y: strategies.map((_, i) => i),
      xgap: 3,
      ygap: 3,
      z: cells.map((row) => row.map((cell) => (exists(cell?.mean) ? scale.place(cell.mean) : null))),
      hovertext: cells.map((row, i) => row.map((cell, k) => cellHover(cell, strategies[i], report.scenarios[k]))),
      hovertemplate: "%{hovertext}<extra></extra>",
      hoverongaps: false,
      colorscale: cellScale(ink),
      zmin: 0,
      zmax: most,
      showscale: false,
    },
  ];
  const ticks = (texts) => ({
    tickmode: "array",
    tickvals: texts.map((_, i) => i),
    ticktext: texts,
    showgrid: false,
    ticks: "",
    showline: false,
    fixedrange: true,
  });
  const layout = layoutOf(ink, width, top + 20 + 44 * strategies.length, {
    margin: { l: 20, r: 8, t: top, b: 8 },
    annotations: cells.flatMap((row, i) => row.flatMap((cell, k) => note(cell, i, k))),
    xaxis: axisOf(ink, {
      ...ticks(report.scenarios.map(({ name }) => wrapped(name, narrow ? 9 : 16))),
      side: "top",
      tickangle: 0,
      automargin: false,
    }),
    yaxis: axisOf(ink, {
      ...ticks(strategies.map((i) => wrapped(nameOf(i), narrow ? 14 : 24))),
      autorange: "reversed",
      tickfont: { color: ink.text, size: 13 },
    }),
  });
  return { data, layout };
}

function cellText(cell, best, narrow) {
  if (!exists(cell?.mean)) return "";
  const mean = (100 * cell.mean).toFixed(1) + (cell.diverged ? " †" : "");
  const half = exists(cell.half) && !narrow ? ` ± ${(100 * cell.half).toFixed(1)}` : "";
  return best ? `<b>${mean}</b>${half}` : mean + half;
}

function cellHover(cell, strategy, scenario) {
  if (!exists(cell?.mean)) return "";
  const lines = [
    `<b>${plain(nameOf(strategy))}</b> in ${plain(scenario.name)}`,
    told(METRICS.accuracy, cell.mean, cell.half),
  ];
  lines.push(`${cell.seeds} seed${cell.seeds > 1 ? "s" : ""}, after ${scenario.last} rounds`);
  if (cell.diverged) lines.push(`diverged in ${cell.diverged} of ${scenario.seeds.length}`);
  return lines.join("<br>");
}

function heatmapSaid() {
  const said = [
    "Test accuracy in % after the last round; bold: the highest of its scenario; colours are logarithmic in the error.",
  ];
  if (report.scenarios.some((scenario) => scenario.seeds.length > 1)) said.push("±: half of the 95 % interval.");
  if (report.scenarios.some((scenario) => scenario.series.some((one) => one.diverged)))
    said.push("†: with diverged runs.");
  return said.join(" ");
}

function heatmapRows() {
  const rows = [["scenario", "strategy", "round", "mean", "half", "seeds", "diverged"]];
  for (const scenario of report.scenarios) {
    for (const { strategy } of scenario.series) {
      const { mean, half, seeds, diverged } = finalOf(scenario, strategy);
      rows.push([scenario.name, nameOf(strategy), scenario.last, mean, half, seeds, diverged]);
    }
  }
  return rows;
}

figures.set("heatmap", {
  title: () => "Test accuracy in % after the last round",
  build: heatmapFigure,
  rows: heatmapRows,
  say: heatmapSaid,
});
"""
