// Every chart: a specification of the page and rows of ours, drawn by Vega without evaluating code.

// Thousands of marks are quicker as pixels; fewer are sharper, and follow the theme at once, as SVG.
const RENDERER = wellCount > 2500 ? "canvas" : "svg";

async function draw(element, kind, datasets, changes = {}) {
  const specification = { ...structuredClone(report.charts[kind]), ...changes, datasets };
  const options = {
    actions: false,
    ast: true,
    defaultStyle: false,
    mode: "vega-lite",
    renderer: RENDERER,
    tooltip: showTooltip,
  };
  const { view } = await vegaEmbed(element, specification, options);
  element.dataset.drawn = "yes";
  views.push(view);
  return view;
}

const views = [];

function redraw(view, name, rows) {
  return view.data(name, rows).runAsync();
}

// Canvas pixels keep the ink they were drawn with.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  if (RENDERER === "canvas") views.forEach((view) => view.resize().runAsync());
});
