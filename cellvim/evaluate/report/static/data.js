// The page's data, how categories look, and the one piece of state that charts share: the highlight.

const report = JSON.parse(document.getElementById("report-data").textContent);
const wellCount = report.wells.name.length;
const PERTURBATION = "Metadata_Perturbation";

// Okabe and Ito's colours that stand out on white and on black alike.
const COLOURS = ["#2a82c7", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#9A7D0A"];
const SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"];
const GREY = "#8a919c";
const VIRIDIS = [
  [68, 1, 84], [72, 40, 120], [62, 74, 137], [49, 104, 142], [38, 130, 142],
  [31, 158, 137], [53, 183, 121], [110, 206, 88], [181, 222, 43], [253, 231, 37],
];

const categoryOf = (key) => report.categories.find((category) => category.key === key);

function textOf(key, well) {
  const category = categoryOf(key);
  const code = category ? category.codes[well] : null;
  return code === null || code === undefined ? null : category.names[code];
}

function plateOf(well) {
  return textOf("Metadata_Plate", well);
}

function describeWell(well, ...more) {
  const control = textOf("Metadata_ControlType", well);
  const lines = [
    textOf(PERTURBATION, well) ?? "no perturbation",
    `${report.wells.name[well]} on ${plateOf(well)}`,
    control ? `control: ${control}` : null,
    ...more,
  ];
  return lines.filter((line) => line !== null).join("\n");
}

function viridis(share) {
  const place = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
  const below = Math.min(Math.floor(place), VIRIDIS.length - 2);
  const mix = (channel) =>
    Math.round(VIRIDIS[below][channel] + (place - below) * (VIRIDIS[below + 1][channel] - VIRIDIS[below][channel]));
  return `rgb(${mix(0)},${mix(1)},${mix(2)})`;
}

function shortNumber(value) {
  if (value === null || value === undefined) return "no value";
  return Math.abs(value) >= 0.00009 || value === 0 ? String(Number(value.toPrecision(3))) : value.toExponential(1);
}

const highlight = {
  name: "",
  listeners: [],
  set(name) {
    this.name = this.name === name ? "" : name;
    this.listeners.forEach((listener) => listener(this.name));
  },
};
