// Every chart: a specification of the page and rows of ours, drawn by Vega without evaluating code.

const MOST_SVG_MARKS = 3000;

const canvasViews = new Map();
// Of views that are as wide as their box: the box.
const boxOfView = new Map();

// As SVG, so that marks drawn in currentColor follow the theme and the printer at once; beyond some thousand marks as
// a canvas, which knows no currentColor: it gets the colour of the moment, and `repaint` draws it again with the theme.
async function draw(element, kind, datasets, changes = {}, { choose = null } = {}) {
  const marks = Math.max(...Object.values(datasets).map((rows) => rows.length));
  const isCanvas = marks > MOST_SVG_MARKS;
  const ink = getComputedStyle(element).color;
  const plain = { ...structuredClone(report.charts[kind]), ...changes };
  const specification = isCanvas ? JSON.parse(JSON.stringify(plain).replaceAll("currentColor", ink)) : plain;
  specification.datasets = isCanvas
    ? Object.fromEntries(Object.entries(datasets).map(([name, rows]) => [name, inked(rows, ink)]))
    : datasets;
  const options = {
    actions: false,
    ast: true,
    defaultStyle: false,
    mode: "vega-lite",
    renderer: isCanvas ? "canvas" : "svg",
    tooltip: showTooltip,
  };
  const { view } = await vegaEmbed(element, specification, options);
  for (const boxes of [canvasViews, boxOfView]) for (const [old, box] of boxes) if (box === element) boxes.delete(old);
  if (isCanvas) canvasViews.set(view, element);
  if (plain.width === "container") boxOfView.set(view, element);
  if (choose) {
    element.classList.add("choosable");
    view.addEventListener("click", (_event, item) => {
      const name = item?.datum?.[choose];
      if (name) highlight.set(name);
    });
  }
  return view;
}

function inked(rows, ink) {
  const solid = (colour) => (colour === "currentColor" ? ink : colour);
  return rows.map((row) => ({ ...row, fill: solid(row.fill), line: solid(row.line), ink: solid(row.ink) }));
}

function redraw(view, name, rows) {
  const element = canvasViews.get(view);
  if (isMisfit(view)) view.width(boxOfView.get(view).clientWidth);
  return view.data(name, element ? inked(rows, getComputedStyle(element).color) : rows).runAsync();
}

function isMisfit(view) {
  const width = boxOfView.get(view)?.clientWidth ?? 0;
  return width > 0 && Math.abs(width - view.width()) > 1;
}

// After the page has become wider or narrower without its window; what was drawn again meanwhile fits already.
function fitCharts() {
  for (const [view, element] of boxOfView) {
    if (!element.isConnected) boxOfView.delete(view);
    else if (isMisfit(view)) {
      drawWhenSeen(view, element, () => (isMisfit(view) ? view.width(element.clientWidth).runAsync() : null));
    }
  }
}

// Where a chart's own coordinates begin, in pixels of the window.
function originOf(element, view) {
  const box = element.querySelector("svg, canvas").getBoundingClientRect();
  const [left, top] = view.origin();
  const padding = view.padding();
  return [box.left + left + padding.left, box.top + top + padding.top];
}

// Alternative text of a chart: what it shows, not only what kind it is.
function describe(element, text) {
  element.setAttribute("aria-label", text);
}
