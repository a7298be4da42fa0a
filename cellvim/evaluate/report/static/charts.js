// Every chart: a specification of the page and rows of ours, drawn by Vega without evaluating code.

const MOST_SVG_MARKS = 3000;

// As SVG, so that marks drawn in currentColor follow the theme and the printer at once; beyond some thousand marks as
// a canvas, which `repaint` of main.js draws again when the theme changes.
async function draw(element, kind, datasets, changes = {}, { choose = null } = {}) {
  const specification = { ...structuredClone(report.charts[kind]), ...changes, datasets };
  const marks = Math.max(...Object.values(datasets).map((rows) => rows.length));
  const options = {
    actions: false,
    ast: true,
    defaultStyle: false,
    mode: "vega-lite",
    renderer: marks > MOST_SVG_MARKS ? "canvas" : "svg",
    tooltip: showTooltip,
  };
  const { view } = await vegaEmbed(element, specification, options);
  if (choose) {
    element.classList.add("choosable");
    view.addEventListener("click", (_event, item) => {
      const name = item?.datum?.[choose];
      if (name) highlight.set(name);
    });
  }
  return view;
}

function redraw(view, name, rows) {
  return view.data(name, rows).runAsync();
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
