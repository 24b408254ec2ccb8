"""Every figure as PNG and SVG, its numbers as CSV: for slides and papers always on white, with a legend."""

SOURCE = r"""
const EXPORT_WIDTH = 1000; // pixels; a PNG has three times as many
const TITLE = 40;

function save(name, blob) {
  const link = element("a", { href: URL.createObjectURL(blob), download: `${report.name}-${name}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function exportButtons(id) {
  const figure = figures.get(id);
  const button = (kind, run) => {
    const made = element(
      "button",
      { type: "button", title: `Save this figure's ${kind === "CSV" ? "numbers" : "picture"}` },
      kind,
    );
    made.setAttribute("aria-label", `${kind} of the figure ${id}`);
    made.addEventListener("click", run);
    return made;
  };
  return [
    button("PNG", () => savePicture(id, figure, "png")),
    button("SVG", () => savePicture(id, figure, "svg")),
    button("CSV", () => save(`${id}.csv`, new Blob([csv(figure.rows())], { type: "text/csv" }))),
  ];
}

async function savePicture(id, figure, format) {
  const { data, layout } = figure.build(report.ink.light, EXPORT_WIDTH, true);
  if (figure.title) addTitle(layout, figure.title());
  const size = { width: layout.width, height: layout.height, format, scale: format === "png" ? 3 : 1 };
  const address = await Plotly.toImage({ data, layout }, size);
  save(`${id}.${format}`, format === "svg" ? textOf(address) : bytesOf(address));
}

// What the page says around the figure, a picture must say by itself.
function addTitle(layout, text) {
  layout.height += TITLE;
  layout.margin.t += TITLE;
  layout.title = {
    text: `<b>${plain(text)}</b>`,
    font: { size: 15 },
    x: 0.012,
    xanchor: "left",
    y: 1 - 20 / layout.height,
    yanchor: "middle",
  };
}

// Not with fetch: the page may not load anything, not even from itself.
function textOf(address) {
  return new Blob([decodeURIComponent(address.slice(address.indexOf(",") + 1))], { type: "image/svg+xml" });
}

function bytesOf(address) {
  const bytes = Uint8Array.from(atob(address.slice(address.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}

function csv(rows) {
  const cell = (value) => {
    const text = exists(value) ? String(value) : "";
    return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",") + "\n").join("");
}
"""
