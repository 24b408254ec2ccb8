"""Inflates the drawing library, draws, and draws again where something changed."""

SOURCE = r"""
const CONFIG = { displayModeBar: false, responsive: false, displaylogo: false };

function holders() {
  return [...document.querySelectorAll("[data-figure]")];
}

function draw(holder) {
  const id = holder.dataset.figure;
  const figure = figures.get(id);
  const plot = holder.querySelector(".plot");
  const width = state.printing ? 700 : plot.clientWidth;
  const { data, layout } = figure.build(inkNow(), width, false);
  Plotly.react(plot, data, layout, CONFIG);
  plot.dataset.width = String(width);
  holder.querySelector(".said").textContent = figure.say();
  figure.after?.();
}

// One figure, or all.
function redraw(id = null) {
  for (const holder of holders()) {
    if (id === null || holder.dataset.figure === id) draw(holder);
  }
}

async function inflate(packed) {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// As an inline script, which the page's policy knows by its hash.
async function loadPlotly() {
  const packed = document.getElementById("plotly");
  const source = await inflate(packed.textContent);
  packed.remove();
  document.head.append(element("script", { textContent: source }));
  if (!window.Plotly) throw new Error("the drawing library did not start");
}

function followWidth() {
  let waiting = false;
  const watch = new ResizeObserver(() => {
    if (waiting || state.printing) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      for (const holder of holders()) {
        const plot = holder.querySelector(".plot");
        if (String(plot.clientWidth) !== plot.dataset.width) draw(holder);
      }
    });
  });
  watch.observe(document.querySelector("main"));
}

function followPrinting() {
  const turn = (on) => () => {
    state.printing = on;
    redraw();
  };
  addEventListener("beforeprint", turn(true));
  addEventListener("afterprint", turn(false));
}

const nextFrame = () =>
  new Promise((go) => {
    setTimeout(go, 0);
  });

async function start() {
  await loadPlotly();
  root.classList.add("js");
  strategyChips();
  themeButton();
  for (const holder of holders()) {
    const id = holder.dataset.figure;
    holder.querySelector(".controls").append(...(figures.get(id).controls?.() ?? []));
    holder.querySelector(".exports").append(...exportButtons(id));
    draw(holder);
    await nextFrame(); // the page can be scrolled and read in between
  }
  followWidth();
  followPrinting();
  root.dataset.ready = "yes";
}

start().catch((error) => {
  root.classList.remove("js");
  const trouble = document.getElementById("trouble");
  trouble.className = "note";
  trouble.textContent = `The curves cannot be explored in this browser (${error.message}); here is the picture.`;
  trouble.hidden = false;
});
"""
