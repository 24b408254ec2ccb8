"""How the global model does on each client's own training data, and how far each client goes from it."""

SOURCE = r"""
const clients = { strategy: null };
const COLUMNS = ["client", "examples", "measured", "before", "after", "norm", "cosine", "refused"];

function clientsNow() {
  const scenario = scenarioNow();
  const seed = seedOf(scenario.clients);
  if (seed === undefined) return null;
  const lines = Object.entries(scenario.clients[seed]).map(([strategy, rows]) => [
    Number(strategy),
    rows.map((row) => Object.fromEntries(COLUMNS.map((name, i) => [name, row[i]]))),
  ]);
  return { seed, roles: scenario.roles[seed] ?? {}, lines: new Map(lines) };
}

function clientsFigure(ink, width) {
  const known = clientsNow();
  const drawn = known ? [...known.lines].filter(([strategy]) => shown(strategy)) : [];
  const data = [];
  drawn.forEach(([strategy, rows], i) => {
    const measured = rows.filter((row) => exists(row.before));
    const fair = measured.filter((row) => !isIgnored(known.roles[row.client]));
    data.push(rangeOf(fair, i, strategy), dotsOf(measured, i, strategy, known.roles, ink));
  });
  const narrow = width < 560;
  const least =
    5 * Math.floor(20 * Math.min(0.9, ...drawn.flatMap(([, rows]) => rows.map((row) => row.before ?? 1))));
  const names = drawn.map(([strategy]) => wrapped(nameOf(strategy), narrow ? 14 : 20));
  const layout = layoutOf(ink, width, 66 + 34 * Math.max(drawn.length, 2), {
    margin: { l: 20, r: 18, t: 8, b: 44 },
    hovermode: "closest",
    xaxis: axisOf(ink, {
      title: `accuracy ${narrow ? "" : "of the global model "}on the client's training data`,
      range: [least - 0.04 * (100 - least), 102],
      ticksuffix: " %",
      nticks: narrow ? 5 : 10,
    }),
    yaxis: axisOf(ink, {
      tickmode: "array",
      tickvals: drawn.map((_, i) => i),
      ticktext: names,
      range: [drawn.length - 0.4, -0.6],
      ticks: "",
      tickfont: { color: ink.text, size: 12.5 },
    }),
  });
  return { data, layout };
}

const isIgnored = (role) => /attacker|outlier/.test(role ?? "");

// From the lowest to the highest honest client.
function rangeOf(rows, i, strategy) {
  const values = rows.map((row) => 100 * row.before);
  return {
    type: "scatter",
    mode: "lines",
    hoverinfo: "skip",
    x: values.length ? [Math.min(...values), Math.max(...values)] : [],
    y: values.length ? [i, i] : [],
    line: { color: faded(report.strategies[strategy].colour, 0.35), width: 6 },
  };
}

function dotsOf(rows, i, strategy, roles, ink) {
  const symbolOf = (role) =>
    /attacker/.test(role)
      ? "x"
      : /outlier/.test(role)
        ? "diamond-open"
        : /slow/.test(role)
          ? "triangle-left"
          : "circle";
  return {
    type: "scatter",
    mode: "markers",
    x: rows.map((row) => 100 * row.before),
    y: rows.map(() => i),
    marker: {
      color: report.strategies[strategy].colour,
      size: 10,
      symbol: rows.map((row) => symbolOf(roles[row.client] ?? "")),
      opacity: 0.9,
      line: { color: ink.paper, width: 1 },
    },
    text: rows.map((row) => clientHover(row, strategy, roles)),
    hovertemplate: "%{text}<extra></extra>",
  };
}

function clientHover(row, strategy, roles) {
  const role = roles[row.client] ? ` (${plain(roles[row.client])})` : "";
  return [
    `<b>client ${row.client}</b>${role}, ${plain(nameOf(strategy))}`,
    "on its training data:",
    `before training ${told(METRICS.accuracy, row.before)}`,
    `after ${told(METRICS.accuracy, row.after)}`,
    `round ${row.measured}`,
  ].join("<br>");
}

function clientsSaid() {
  const known = clientsNow();
  if (!known) return `There are no rows about single clients of ${scenarioNow().name}.`;
  const said = [
    `${scenarioNow().name}, seed ${known.seed}: the model with which the last measured round began,`,
    `${report.measured}. ${report.not_judged}`,
    "A mark is a client; bars: from the lowest to the highest honest one.",
  ];
  if (Object.keys(known.roles).length) said.push("✕: attacker, ◇: corrupted data, ◂: slow.");
  if (![...known.lines.values()].flat().some((row) => exists(row.before)))
    said.push("Clients did not test on their training data yet.");
  return said.join(" ");
}

// The table of one strategy, below the figure.
function clientTable() {
  const known = clientsNow();
  const holder = document.getElementById("client-table");
  if (!known) return holder.replaceChildren();
  const strategies = [...known.lines.keys()];
  const strategy = strategies.includes(clients.strategy) ? clients.strategy : strategies[0];
  const rows = known.lines.get(strategy);
  const lowest = lowestOf(rows, known.roles);
  const heads = ["client", "examples", "before %", "after %", "drift", "cosine", "round", "rej."];
  const share = (value) => (exists(value) ? (100 * value).toFixed(2) : "-");
  const number = (value) => (exists(value) ? String(Number(value.toPrecision(3))) : "-");
  const body = rows.map((row) => {
    const notes = [known.roles[row.client], row === lowest ? "lowest" : ""].filter(Boolean).join(", ");
    const cells = [
      row.examples ?? "-",
      share(row.before),
      share(row.after),
      number(row.norm),
      number(row.cosine),
      row.measured || "-",
      row.refused,
    ];
    const line = element(
      "tr",
      { className: isIgnored(known.roles[row.client]) ? "ignored" : "" },
      element("th", { scope: "row" }, notes ? `${row.client} (${notes})` : String(row.client)),
    );
    line.append(...cells.map((cell) => element("td", {}, String(cell))));
    return line;
  });
  const table = element(
    "table",
    {},
    element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...body),
  );
  holder.replaceChildren(
    element("h3", {}, `${nameOf(strategy)} in ${scenarioNow().name}, seed ${known.seed}`),
    element("div", { className: "wide", tabIndex: 0 }, table),
    element("p", { className: "note" }, `before, after: accuracy ${report.measured}, before and after its training.`),
  );
  return null;
}

function lowestOf(rows, roles) {
  const fair = rows.filter((row) => exists(row.before) && !isIgnored(roles[row.client]));
  return fair.reduce((low, row) => (low === null || row.before < low.before ? row : low), null);
}

function clientsRows() {
  const rows = [
    [
      "scenario",
      "strategy",
      "seed",
      "client",
      "role",
      "examples",
      "round",
      "accuracy_before_on_training_data",
      "accuracy_after_on_training_data",
      "update_norm",
      "cosine",
      "rejected",
    ],
  ];
  for (const scenario of report.scenarios) {
    for (const [seed, byStrategy] of Object.entries(scenario.clients)) {
      for (const [strategy, lines] of Object.entries(byStrategy)) {
        for (const [client, ...rest] of lines) {
          rows.push([scenario.name, nameOf(strategy), seed, client, scenario.roles[seed]?.[client] ?? "", ...rest]);
        }
      }
    }
  }
  return rows;
}

figures.set("clients", {
  title: () => `${scenarioNow().name}, seed ${clientsNow()?.seed}: clients`,
  build: clientsFigure,
  rows: clientsRows,
  say: clientsSaid,
  after: clientTable,
  controls: () => {
    const options = report.strategies.map((strategy, i) => [String(i), strategy.name]);
    const ofTable = choice("Table of", options, 0, (i) => {
      clients.strategy = Number(i);
      clientTable();
    });
    return [
      ...scenarioChoice(),
      ...seedChoice((scenario) => scenario.clients),
      ...(options.length > 1 ? [ofTable] : []),
    ];
  },
});
"""
