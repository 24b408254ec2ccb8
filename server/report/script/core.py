"""What the page's own script begins with: the numbers, what the reader chose, and words for values."""

# ruff: noqa: RUF001
SOURCE = r"""
"use strict";

const report = JSON.parse(document.getElementById("numbers").textContent);
const root = document.documentElement;

// What the reader chose. Scenario and seed are shared: all figures that show one scenario show the same.
const state = { hidden: new Set(), scenario: 0, seed: null, printing: false };

// id -> {build(ink, width, exported), rows(), say()?, controls()?}: what a figure is; see `draw` in main.js.
const figures = new Map();

const METRICS = {
  accuracy: { label: "Test accuracy", unit: "%", scale: 100, digits: 2, log: "error" },
  loss: { label: "Test loss", unit: "nats", scale: 1, digits: 3, log: "value" },
  worst_on_training_data: {
    label: "Training data: worst client",
    unit: "%",
    scale: 100,
    digits: 2,
    log: "error",
    sparse: true,
    about: `The lowest accuracy of the model with which a round began, ${report.measured}. ${report.not_judged}`,
  },
  spread_on_training_data: {
    label: "Training data: spread",
    unit: "points",
    scale: 100,
    digits: 1,
    sparse: true,
    about: `Highest minus lowest accuracy of the model that began a round, ${report.measured}. ${report.not_judged}`,
  },
  norm: {
    label: "Drift: length of updates",
    unit: "",
    scale: 1,
    digits: 3,
    log: "value",
    sparse: true,
    about: "L2 norm of a client's update, mean over clients.",
  },
  cosine: {
    label: "Drift: cosine to the global step",
    unit: "",
    scale: 1,
    digits: 3,
    sparse: true,
    about: "Direction of a client's update beside the step of the global model, mean over clients.",
  },
};

// In the names of comparison.csv.
const COMPARED = {
  test_accuracy: { label: "Test accuracy", unit: "points", scale: 100, digits: 2 },
  test_loss: { label: "Test loss", unit: "nats", scale: 1, digits: 3 },
  rounds_to_target: { label: "Rounds to the target", unit: "rounds", scale: 1, digits: 1 },
};

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Plotly reads a little HTML in its texts; names are none.
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

// A long name in lines of about so many letters, broken where its parts meet.
function wrapped(text, letters = 16) {
  const lines = [""];
  for (const part of String(text).split(/(?<=[:,+\s=-])/)) {
    if (lines.at(-1) && lines.at(-1).length + part.length > letters) lines.push("");
    lines[lines.length - 1] += part;
  }
  return lines.map(plain).join("<br>");
}

const exists = (value) => value !== null && value !== undefined;
const unitOf = (metric) => (metric.unit ? `\u00a0${metric.unit}` : "");

// A value of a metric for people, with half of its interval.
function told(metric, mean, half = null) {
  if (!exists(mean)) return "–";
  const text = (value) => (metric.scale * value).toFixed(metric.digits);
  return text(mean) + (exists(half) ? `\u00a0±\u00a0${text(half)}` : "") + unitOf(metric);
}

const pText = (value, digits) => (value < 0.0001 ? "p < 0.0001" : `p = ${Number(value.toPrecision(digits))}`);

const shown = (strategy) => !state.hidden.has(strategy);
const scenarioNow = () => report.scenarios[state.scenario];
const nameOf = (strategy) => report.strategies[strategy].name;

// The chosen seed where `bySeed` has it, or else the first that it has.
function seedOf(bySeed) {
  const seeds = Object.keys(bySeed);
  return seeds.includes(String(state.seed)) ? String(state.seed) : seeds[0];
}
"""
