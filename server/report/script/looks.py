"""Colours, lines and axes: the same looks as curves.png."""

SOURCE = r"""
const BEST = 0.999; // accuracies above are drawn here where the axis is logarithmic in the error
const LOWEST = 1e-3; // where a band ends at the latest on a logarithmic axis
const REACH = 0.2; // how far bands may widen an axis, as a share of what the lines take
const LINE = 2;
const RIBBON = 5; // pixels: a line, and by how much a ribbon shows on each of its sides together
const MOST_MARKERS = 12;
const MOST_TURNS = 6;

function isDark() {
  const chosen = root.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

const inkNow = () => report.ink[isDark() && !state.printing ? "dark" : "light"];

function faded(colour, share) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return `rgba(${red},${green},${blue},${share})`;
}

// Between two colours, for cells that are darker where there is more.
function mixed(one, other, share) {
  const parts = [1, 3, 5].map((at) => {
    const [from, to] = [one, other].map((colour) => parseInt(colour.slice(at, at + 2), 16));
    return Math.round(from + share * (to - from));
  });
  return `rgb(${parts.join(",")})`;
}

// Cells from the paper's colour to a full blue.
function cellColour(ink, share) {
  const dark = ink.paper !== report.ink.light.paper;
  return dark ? mixed("#1f2832", "#1f76b0", share) : mixed("#eef3f7", "#0072B2", share);
}

function cellScale(ink) {
  return [0, 1].map((share) => [share, cellColour(ink, share)]);
}

// The text of a cell, black or white, whichever can be read there; Plotly's own choice is too faint on middle blues.
function cellNote(x, y, text, share, ink, size) {
  const parts = cellColour(ink, Math.min(Math.max(share, 0), 1)).match(/\d+/g).map((part) => (part / 255) ** 2.2);
  const light = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  return { x, y, text, showarrow: false, font: { size, color: light > 0.2 ? "#0b1a26" : "#ffffff" } };
}

function layoutOf(ink, width, height, more = {}) {
  return {
    width,
    height,
    paper_bgcolor: ink.paper,
    plot_bgcolor: ink.paper,
    font: { family: "system-ui, sans-serif", size: 13, color: ink.text },
    margin: { l: 58, r: 16, t: 12, b: 44 },
    hoverlabel: { bgcolor: ink.paper, bordercolor: ink.faint, font: { color: ink.text, size: 13 }, align: "left" },
    showlegend: false,
    // On a touch screen a finger on a figure scrolls the page.
    dragmode: matchMedia("(pointer: fine)").matches ? "zoom" : false,
    ...more,
  };
}

function axisOf(ink, more = {}) {
  return {
    gridcolor: ink.grid,
    linecolor: ink.faint,
    tickcolor: ink.faint,
    zeroline: false,
    automargin: true,
    tickfont: { color: ink.faint, size: 12 },
    ...more,
    title: { text: more.title ?? "", font: { color: ink.faint, size: 12 }, standoff: 8 },
  };
}

// Strategies that coincide are ribbons of falling width, so that all of them stay visible.
function lineLook(strategy, groups) {
  const group = groups.find((some) => some.includes(strategy)) ?? [strategy];
  const { colour, dash } = report.strategies[strategy];
  const width = LINE + RIBBON * (group.filter(shown).length - 1 - group.filter(shown).indexOf(strategy));
  return { color: colour, dash: group.length > 1 ? "solid" : dash, width };
}

// Whether it lies on the ribbon of a strategy that coincides with it.
function isInner(strategy, groups) {
  const group = groups.find((some) => some.includes(strategy)) ?? [];
  return group.filter(shown).indexOf(strategy) > 0;
}

// Strategies take turns with markers, so that those of lines close to each other do not hide each other.
function markerLook(strategy, points, ink) {
  const turns = Math.min(Math.max(report.strategies.length, 3), MOST_TURNS);
  const step = Math.max(turns, Math.ceil(points / MOST_MARKERS));
  const here = strategy % Math.min(step, points);
  const { colour, symbol } = report.strategies[strategy];
  const size = Array.from({ length: points }, (_, i) => (i % step === here ? 8 : 0));
  return {
    color: colour,
    symbol,
    size,
    opacity: 1,
    line: { color: ink.paper, width: size.map((some) => (some ? 0.8 : 0)) },
  };
}

// How a metric's values become heights: `to` is what Plotly draws, `place` where that is along the axis.
function scaleOf(metric, log) {
  if (log && metric.log === "error") {
    const to = (value) => 1 - Math.min(Math.max(value, 0), BEST);
    return { to, place: (value) => -Math.log10(to(value)), type: "log", sign: -1 };
  }
  if (log && metric.log === "value") {
    const to = (value) => (value > 0 ? Math.max(value, LOWEST) : LOWEST);
    return { to, place: (value) => Math.log10(to(value)), type: "log", sign: 1 };
  }
  const to = (value) => value * metric.scale;
  return { to, place: to, type: "linear", sign: 1 };
}

// The limits follow the lines: few seeds have bands so wide that they would flatten everything.
function limitsOf(scale, means, ends) {
  const places = means.map(scale.place);
  const reached = ends.map(scale.place);
  let low = Math.min(...places);
  let high = Math.max(...places);
  if (!places.length) [low, high] = [0, 1];
  const reach = REACH * (high - low);
  if (reached.length) {
    [low, high] = [
      Math.min(low, Math.max(Math.min(...reached), low - reach)),
      Math.max(high, Math.min(Math.max(...reached), high + reach)),
    ];
  }
  const room = Math.max(high - low, 0.02);
  return [low - 0.05 * room, high + 0.07 * room];
}

function valueAxis(ink, metric, scale, [low, high], more = {}) {
  const range = [scale.sign * low, scale.sign * high];
  const suffix = metric.unit === "%" ? " %" : "";
  const axis = axisOf(ink, { type: scale.type, range, ticksuffix: suffix, ...more });
  if (scale.sign < 0) Object.assign(axis, errorTicks(low, high));
  else if (scale.type === "log") Object.assign(axis, { dtick: high - low < 2.2 ? "D2" : "D1", tickformat: "~g" });
  return axis;
}

// Accuracies where the axis is logarithmic in the error, the best places first, as many as have room.
function errorTicks(low, high) {
  const place = (accuracy) => -Math.log10(1 - accuracy);
  const ticks = [];
  for (const tick of report.ticks.flat()) {
    const here = place(tick);
    if (
      low <= here &&
      here <= high &&
      ticks.every((other) => Math.abs(place(other) - here) > 0.075 * (high - low))
    ) {
      ticks.push(tick);
    }
  }
  const few = ticks.length < 3 ? evenTicks(1 - 10 ** -low, 1 - 10 ** -high) : ticks;
  const text = (tick) => `${Number((100 * tick).toFixed(3))} %`;
  return { tickmode: "array", tickvals: few.map((tick) => 1 - tick), ticktext: few.map(text), ticksuffix: "" };
}

// Plain steps, where accuracies hardly differ.
function evenTicks(low, high) {
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
}
"""
