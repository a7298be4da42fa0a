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

const categoryOf = (() => {
  const known = new Map(report.categories.map((category) => [category.key, category]));
  return (key) => known.get(key);
})();

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

// Counts in text, as in 12,345.
const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
const percent = (share) => `${Math.round(100 * share)} %`;
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function chooser(name) {
  const button = element("button", name, "choose");
  button.type = "button";
  button.dataset.perturbation = name;
  return button;
}

function say(text) {
  document.getElementById("status").textContent = text;
}

// Pictures are stored once, as PNG or, where they are many, as JPEG.
function showPicture(image, place) {
  const code = report.pictures[place];
  image.src = `data:image/${code.startsWith("/9j/") ? "jpeg" : "png"};base64,${code}`;
}

// Where there are many wells, values are stored as steps between the smallest and the largest.
for (const measure of report.measures) {
  if (measure.step === undefined) continue;
  measure.values = measure.values.map((steps) => (steps === null ? null : measure.first + steps * measure.step));
}

const perturbations = report.perturbations;
const TASKS = Object.keys(report.tasks);
// Rows of the first table, which the wells are of.
const leadingRow = new Map();
perturbations.name.forEach((code, row) => {
  if (perturbations.table[row] === 0) leadingRow.set(perturbations.names[code], row);
});
const wellsOf = (() => {
  const category = categoryOf(PERTURBATION);
  const found = new Map((category?.names ?? []).map((name) => [name, []]));
  category?.codes.forEach((code, well) => { if (code !== null) found.get(category.names[code]).push(well); });
  return (name) => found.get(name) ?? [];
})();
const everyName = (() => {
  const names = new Set(categoryOf(PERTURBATION)?.names ?? []);
  for (const row of leadingRow.keys()) names.add(row);
  return [...names];
})();

function scoreOf(row, task) {
  const scores = perturbations.scores[task];
  const map = scores.map[row];
  const p = scores.p[row];
  if (map === null || p === null) return null;
  const q = scores.q[row];
  return {
    name: perturbations.names[perturbations.name[row]],
    replicates: perturbations.replicates[row],
    map,
    normalized_map: scores.normalized_map[row],
    p,
    q,
    smallest_p: scores.smallest_p[row],
    is_significant: q !== null && q < 0.05,
  };
}

// The one perturbation that is looked at, for every view that follows it.
const highlight = {
  name: "",
  listeners: [],
  set(name, { isFromAddress = false } = {}) {
    const before = this.name;
    this.name = name;
    for (const listener of this.listeners) listener(name, { before, isFromAddress });
  },
};
