// Wells in two dimensions, coloured by a chosen column; the legend highlights.

const mapViews = new Map();
const colourChoice = document.getElementById("colour-choice");
const focusChoice = document.getElementById("focus-choice");
const MOST_STYLES = COLOURS.length * SHAPES.length;
const FEW_STYLES = COLOURS.length * 2;
const PLAIN = { fill: GREY, line: GREY, shape: "circle", order: 0 };
const MARK_SIZE = wellCount > 2000 ? 18 : wellCount > 600 ? 34 : 52;

const isNegativeControl = (() => {
  const names = new Set();
  for (let well = 0; well < wellCount; well += 1) {
    if (textOf("Metadata_ControlType", well) === "negcon") names.add(textOf(PERTURBATION, well));
  }
  return (name) => names.has(name);
})();

// The most active perturbations get a colour first, where there are more than can be told apart.
function ranked(category) {
  const [task] = Object.keys(report.scores);
  if (category.key !== PERTURBATION || category.names.length <= MOST_STYLES || !task) return category.names;
  const own = report.scores[task].filter((score) => score.table === report.tables[0]);
  const strength = new Map(own.map((score) => [score.name, score.map]));
  return [...category.names].sort((a, b) => (strength.get(b) ?? -1) - (strength.get(a) ?? -1));
}

function stylesOf(category) {
  const styles = new Map();
  const room = category.names.length > MOST_STYLES + 1 ? FEW_STYLES : MOST_STYLES;
  let place = 0;
  for (const name of ranked(category)) {
    const isControl = category.key === PERTURBATION && isNegativeControl(name);
    if (isControl) styles.set(name, { fill: "transparent", line: GREY, shape: "circle", order: 0 });
    else if (place < room) {
      const fill = COLOURS[place % COLOURS.length];
      styles.set(name, { fill, line: fill, shape: SHAPES[Math.floor(place / COLOURS.length)], order: 1 });
      place += 1;
    }
  }
  return styles;
}

function unnamed(category) {
  return category.key === "Metadata_ControlType" ? "treatment" : "not given";
}

function mapPoints(kind) {
  const category = categoryOf(colourChoice.value);
  const styles = stylesOf(category);
  const [x, y] = [1, 2].map((axis) => report.measures.find((measure) => measure.key === `${kind}_${axis}`));
  if (!x || !y) return [];
  const points = [];
  for (let well = 0; well < wellCount; well += 1) {
    if (x.values[well] === null || y.values[well] === null) continue;
    const style = styles.get(textOf(category.key, well)) ?? PLAIN;
    const isFocus = textOf(PERTURBATION, well) === highlight.name;
    points.push({
      x: x.values[well],
      y: y.values[well],
      ...style,
      order: isFocus ? 2 : style.order,
      line: highlight.name && isFocus ? "currentColor" : style.line,
      opacity: highlight.name ? (isFocus ? 1 : 0.12) : style === PLAIN ? 0.4 : 0.85,
      size: isFocus ? 1.6 * MARK_SIZE : MARK_SIZE,
      tooltip: describeWell(well, labelledValue(category, well)),
    });
  }
  return points;
}

function labelledValue(category, well) {
  const isShown = ["Metadata_Plate", PERTURBATION, "Metadata_ControlType"].includes(category.key);
  return isShown ? null : `${category.label}: ${textOf(category.key, well) ?? unnamed(category)}`;
}

async function drawMaps() {
  for (const element of document.querySelectorAll("[data-map]")) {
    const kind = element.dataset.map;
    const points = mapPoints(kind);
    if (mapViews.has(kind)) await redraw(mapViews.get(kind), "points", points);
    else mapViews.set(kind, await draw(element, "map", { points }));
  }
}

const GLYPHS = {
  circle: "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0",
  square: "M-4.5,-4.5h9v9h-9z",
  "triangle-up": "M0,-5L5.5,4.5H-5.5z",
  "triangle-down": "M0,5L5.5,-4.5H-5.5z",
  diamond: "M0,-6L4.5,0L0,6L-4.5,0z",
  cross: "M-2,-5.5h4v3.5h3.5v4h-3.5v3.5h-4v-3.5h-3.5v-4h3.5z",
};

function glyph(style) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "-7 -7 14 14");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", GLYPHS[style.shape]);
  path.setAttribute("fill", style.fill);
  path.setAttribute("stroke", style.line);
  svg.append(path);
  return svg;
}

function legendEntry(category, name, style) {
  const entry = document.createElement("li");
  const isButton = category.key === PERTURBATION;
  const holder = document.createElement(isButton ? "button" : "span");
  if (isButton) {
    holder.type = "button";
    holder.dataset.name = name;
    holder.setAttribute("aria-pressed", String(name === highlight.name));
  }
  holder.append(glyph(style), name);
  entry.append(holder);
  return entry;
}

function drawLegend() {
  const category = categoryOf(colourChoice.value);
  const styles = stylesOf(category);
  const entries = category.names
    .filter((name) => styles.has(name))
    .map((name) => legendEntry(category, name, styles.get(name)));
  const others = category.names.length - styles.size;
  const hasUnnamed = category.codes.includes(null);
  if (others || hasUnnamed) {
    const label = others ? `${others} others (choose one under Highlight)` : unnamed(category);
    const entry = document.createElement("li");
    const holder = document.createElement("span");
    holder.append(glyph(PLAIN), label);
    entry.append(holder);
    entries.push(entry);
  }
  document.getElementById("legend").replaceChildren(...entries);
}

function startMaps() {
  if (!colourChoice) return Promise.resolve();
  for (const name of categoryOf(PERTURBATION)?.names ?? []) focusChoice.append(new Option(name, name));
  colourChoice.addEventListener("change", () => { drawLegend(); drawMaps(); });
  focusChoice.addEventListener("change", () => highlight.set(focusChoice.value));
  document.getElementById("legend").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) highlight.set(button.dataset.name);
  });
  highlight.listeners.push((name) => {
    focusChoice.value = name;
    for (const button of document.querySelectorAll("#legend button")) {
      button.setAttribute("aria-pressed", String(button.dataset.name === name));
    }
    drawMaps();
  });
  drawLegend();
  return drawMaps();
}
