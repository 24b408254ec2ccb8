"""Who holds which labels, and who is different."""

SOURCE = r"""
function partitionNow() {
  const bySeed = scenarioNow().partition;
  const seed = seedOf(bySeed);
  return seed === undefined ? null : { seed, ...bySeed[seed], roles: scenarioNow().roles[seed] ?? {} };
}

function partitionFigure(ink, width) {
  const known = partitionNow();
  const counts = known?.counts ?? [];
  const clients = counts.map((_, client) => client);
  const classes = (counts[0] ?? []).map((_, label) => label);
  const narrow = width < 560;
  const tall = Math.min(Math.max(900 / Math.max(clients.length, 1), 4), 30);
  const numbers = clients.length <= 30 && (width - 130) / Math.max(classes.length, 1) > 26;
  const mark = (client) => {
    const role = known.roles[client];
    return role
      ? `<b>${client} ${plain(narrow && role.length > 9 ? role.slice(0, 8) + "…" : role)}</b>`
      : String(client);
  };
  const most = Math.max(1, ...counts.flat());
  const all = counts.map((row) => row.reduce((sum, count) => sum + count, 0));
  const data = [
    {
      type: "heatmap",
      x: classes,
      y: clients,
      z: counts,
      xgap: tall > 10 ? 2 : 0,
      ygap: tall > 10 ? 2 : 0,
      colorscale: cellScale(ink),
      zmin: 0,
      zmax: most,
      showscale: !narrow,
      colorbar: {
        title: { text: "examples", side: "right", font: { size: 12, color: ink.faint } },
        thickness: 12,
        outlinewidth: 0,
        tickfont: { color: ink.faint },
      },
      hovertext: counts.map((row, client) =>
        row.map((count, label) => partitionHover(client, label, count, all[client], known.roles)),
      ),
      hovertemplate: "%{hovertext}<extra></extra>",
    },
  ];
  const marked = clients.filter((client) => tall > 12 || known.roles[client]);
  const layout = layoutOf(ink, width, 70 + Math.max(tall * clients.length, 60), {
    margin: { l: 30, r: narrow ? 8 : 20, t: 8, b: 46 },
    annotations: numbers
      ? counts.flatMap((row, y) => row.map((count, x) => cellNote(x, y, String(count), count / most, ink, 11)))
      : [],
    xaxis: axisOf(ink, {
      title: "class",
      showgrid: false,
      ticks: "",
      dtick: classes.length <= 20 ? 1 : undefined,
      fixedrange: true,
    }),
    yaxis: axisOf(ink, {
      title: "client",
      showgrid: false,
      ticks: "",
      autorange: "reversed",
      fixedrange: true,
      ...(marked.length <= 60 && known ? { tickmode: "array", tickvals: marked, ticktext: marked.map(mark) } : {}),
    }),
  });
  return { data, layout };
}

function partitionHover(client, label, count, all, roles) {
  const role = roles[client] ? ` (${plain(roles[client])})` : "";
  return `<b>client ${client}</b>${role}<br>class ${label}: ${count} of ${all} examples`;
}

function partitionSaid() {
  const known = partitionNow();
  const scenario = scenarioNow();
  if (!known) return `Nothing is known of the shards of ${scenario.name}.`;
  const said = [`${scenario.name}, seed ${known.seed}: a row is a client, a column a class.`];
  if (exists(known.p)) said.push(`Chi-square ${pText(known.p, 3)} for equal shares of labels.`);
  const roles = Object.entries(known.roles).map(([client, role]) => `${client} (${role})`);
  if (roles.length && roles.length <= 20) said.push(`Different: client ${roles.join(", ")}.`);
  if (known.left) said.push(`${known.left} more clients are in run.json.`);
  return said.join(" ");
}

function partitionRows() {
  const rows = [["scenario", "seed", "client", "role", "class", "examples"]];
  for (const scenario of report.scenarios) {
    for (const [seed, { counts }] of Object.entries(scenario.partition)) {
      counts.forEach((row, client) =>
        row.forEach((count, label) => {
          rows.push([scenario.name, seed, client, scenario.roles[seed]?.[client] ?? "", label, count]);
        }),
      );
    }
  }
  return rows;
}

figures.set("partition", {
  title: () => `${scenarioNow().name}, seed ${partitionNow()?.seed}: examples of each class by client`,
  build: partitionFigure,
  rows: partitionRows,
  say: partitionSaid,
  controls: () => [...scenarioChoice(), ...seedChoice((scenario) => scenario.partition)],
});
"""
