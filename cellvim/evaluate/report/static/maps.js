// Wells in two dimensions, coloured by a chosen column.

const mapViews = new Map();
const colourChoice = document.getElementById("colour-choice");
const MOST_STYLES = COLOURS.length * SHAPES.length;
const FEW_STYLES = COLOURS.length * 2;
const PLAIN = { fill: GREY, line: GREY, shape: "circle", order: 0 };
const MARK_SIZE = wellCount > 2000 ? 18 : wellCount > 600 ? 34 : 52;

const MOST_MARKS = 10000;

// Every so-manyth well where there are too many to draw; a chosen perturbation is drawn whole.
const drawnStep = Math.ceil(wellCount / MOST_MARKS);
const isDrawn = (well) => drawnStep === 1 || (well * 7919) % wellCount < wellCount / drawnStep;

const isNegativeControl = (() => {
  const names = new Set();
  for (let well = 0; well < wellCount; well += 1) {
    if (textOf("Metadata_ControlType", well) === "negcon") names.add(textOf(PERTURBATION, well));
  }
  return (name) => names.has(name);
})();

// The most active perturbations get a colour first, where there are more than can be told apart.
function ranked(category) {
  const [task] = TASKS;
  if (category.key !== PERTURBATION || category.names.length <= MOST_STYLES || !task) return category.names;
  const strength = new Map([...leadingRow].map(([name, row]) => [name, perturbations.scores[task].map[row] ?? -1]));
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
    const name = textOf(PERTURBATION, well);
    const isFocus = Boolean(highlight.name) && name === highlight.name;
    if (x.values[well] === null || y.values[well] === null || !(isFocus || isDrawn(well))) continue;
    const style = styles.get(textOf(category.key, well)) ?? PLAIN;
    points.push({
      name,
      well,
      x: x.values[well],
      y: y.values[well],
      ...style,
      order: isFocus ? 2 : style.order,
      line: isFocus ? "currentColor" : style.line,
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
    if (mapViews.has(kind)) {
      await drawWhenSeen(element, element, () => redraw(mapViews.get(kind), "points", mapPoints(kind)));
    } else {
      const points = mapPoints(kind);
      mapViews.set(kind, await draw(element, "map", { points }, {}, { choose: "name" }));
      describeMap(element, kind, points);
    }
  }
}

// Of how many marks does the nearest one share the perturbation, or the plate? Asked of some hundred of them.
function describeMap(element, kind, points) {
  const named = points.filter((point) => point.name !== null);
  const asked = named.filter((_point, place) => place % Math.ceil(named.length / 400) === 0);
  const counts = { perturbation: 0, plate: 0 };
  for (const point of asked) {
    const nearest = nearestTo(point, named);
    counts.perturbation += nearest?.name === point.name;
    counts.plate += Boolean(nearest) && plateOf(nearest.well) === plateOf(point.well);
  }
  const shares = asked.length
    ? ` The mark nearest to a well is of the same perturbation for ${percent(counts.perturbation / asked.length)} of ` +
      `wells${report.plates.length > 1 ? `, and of the same plate for ${percent(counts.plate / asked.length)}` : ""}.`
    : "";
  const note = document.querySelector(`.map-note[data-kind="${kind}"]`);
  const share = points.length < wellCount ? ` of ${wellCount.toLocaleString("en")}` : "";
  note.textContent = `${points.length.toLocaleString("en")}${share} wells.${shares}`;
  describe(element, `${kind.toUpperCase()} of ${points.length.toLocaleString("en")} wells, one mark each.${shares}`);
}

function nearestTo(point, others) {
  let best = null;
  let least = Infinity;
  for (const other of others) {
    const distance = (other.x - point.x) ** 2 + (other.y - point.y) ** 2;
    if (distance < least && other !== point) {
      least = distance;
      best = other;
    }
  }
  return best;
}

function startMaps() {
  if (!colourChoice) return Promise.resolve();
  colourChoice.addEventListener("change", () => { drawLegend(); drawMaps(); });
  highlight.listeners.push((name) => {
    for (const button of document.querySelectorAll("#legend button")) {
      button.setAttribute("aria-pressed", String(button.dataset.perturbation === name));
    }
    drawMaps();
  });
  drawLegend();
  return drawMaps();
}
