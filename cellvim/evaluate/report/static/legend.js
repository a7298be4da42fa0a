// What the colours and shapes of the maps mean.

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
    holder.className = "choose";
    holder.dataset.perturbation = name;
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
    const label = others ? `${others} others (choose one under Find a perturbation)` : unnamed(category);
    const entry = document.createElement("li");
    const holder = document.createElement("span");
    holder.append(glyph(PLAIN), label);
    entry.append(holder);
    entries.push(entry);
  }
  document.getElementById("legend").replaceChildren(...entries);
}
