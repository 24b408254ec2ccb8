"""Native controls: reachable and operable by keyboard without further ado."""

SOURCE = r"""
const shared = { scenario: [], seed: [] }; // the selects that show the same choice

function choice(label, options, value, changed) {
  const select = element("select", {}, ...options.map(([key, text]) => element("option", { value: key }, text)));
  select.value = String(value);
  select.addEventListener("change", () => changed(select.value));
  return element("label", {}, element("span", { className: "name" }, label), select);
}

function check(label, checked, changed) {
  const box = element("input", { type: "checkbox", checked });
  box.addEventListener("change", () => changed(box.checked));
  return element("label", {}, box, label);
}

function sharedChoice(key, label, options, value, changed) {
  if (options.length < 2) return [];
  const made = choice(label, options, value, (chosen) => {
    changed(chosen);
    for (const select of shared[key]) select.value = chosen;
    redraw();
  });
  shared[key].push(made.querySelector("select"));
  return [made];
}

function scenarioChoice() {
  const options = report.scenarios.map((scenario, i) => [String(i), scenario.name]);
  return sharedChoice("scenario", "Scenario", options, state.scenario, (chosen) => {
    state.scenario = Number(chosen);
  });
}

function seedChoice(seedsOf) {
  const seeds = [...new Set(report.scenarios.flatMap((scenario) => Object.keys(seedsOf(scenario))))];
  seeds.sort((one, other) => one - other);
  state.seed ??= seeds[0] ?? null;
  return sharedChoice(
    "seed",
    "Seed",
    seeds.map((seed) => [seed, seed]),
    state.seed,
    (chosen) => {
      state.seed = chosen;
    },
  );
}

// One button a strategy: a legend that can be pressed. With Shift, or twice, it shows this one alone.
function strategyChips() {
  const buttons = report.strategies.map((strategy, i) => {
    const button = element("button", { type: "button", className: "chip", title: "Shift: this one alone" });
    button.append(sample(strategy), element("span", {}, strategy.name));
    button.addEventListener("click", (event) => toggle(i, event.shiftKey));
    return button;
  });
  const all = element("button", { type: "button", className: "chip all" }, "all");
  all.addEventListener("click", () => {
    state.hidden.clear();
    showChips();
    redraw();
  });
  document.getElementById("chips").append(...buttons, ...(buttons.length > 1 ? [all] : []));
  showChips();
}

function toggle(strategy, alone) {
  const others = report.strategies.map((_, i) => i).filter((i) => i !== strategy);
  if (alone) {
    state.hidden = new Set(others);
  } else if (!state.hidden.delete(strategy)) {
    state.hidden.add(strategy);
  }
  showChips();
  redraw();
}

function showChips() {
  const buttons = [...document.getElementById("chips").children];
  report.strategies.forEach((_, i) => buttons[i].setAttribute("aria-pressed", String(shown(i))));
}

const DASHES = { solid: "", dash: "6 3", dot: "2 2.5", dashdot: "7 3 2 3", longdash: "10 3" };
const SHAPES = {
  circle: '<circle cx="14" cy="6" r="3.6"/>',
  square: '<rect x="10.6" y="2.6" width="6.8" height="6.8"/>',
  "triangle-up": '<path d="M14 1.8 18.2 9.4H9.8Z"/>',
  diamond: '<path d="M14 1.2 18.4 6 14 10.8 9.6 6Z"/>',
  "triangle-down": '<path d="M14 10.2 18.2 2.6H9.8Z"/>',
  cross: '<path d="M12.6 2h2.8v2.6H18v2.8h-2.6V10h-2.8V7.4H10V4.6h2.6Z"/>',
  x: '<path d="M12.6 2h2.8v2.6H18v2.8h-2.6V10h-2.8V7.4H10V4.6h2.6Z" transform="rotate(45 14 6)"/>',
  pentagon: '<path d="M14 1.4 18.4 4.8 16.7 10H11.3L9.6 4.8Z"/>',
};

// A piece of the strategy's line with its marker.
function sample({ colour, dash, symbol }) {
  const holder = element("template");
  holder.innerHTML = `<svg width="28" height="12" aria-hidden="true" fill="${colour}"><path d="M0 6H28" fill="none"
    stroke="${colour}" stroke-width="2.2" stroke-dasharray="${DASHES[dash]}"/>${SHAPES[symbol]}</svg>`;
  return holder.content.firstChild;
}

// Light, dark, or whatever the system says, also when it changes its mind.
function themeButton() {
  const button = document.getElementById("theme");
  const next = { auto: "light", light: "dark", dark: "auto" };
  button.addEventListener("click", () => {
    const theme = next[root.dataset.theme ?? "auto"];
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
}
"""
