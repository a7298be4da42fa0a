// Estimates with their intervals, one row each.

const FOREST_ROW_PX = 40;
const FOREST_AXIS_PX = 52;

function forestRow(row, place, isFilled = true) {
  return {
    low: null,
    high: null,
    chance: null,
    ...row,
    row: place,
    fill: isFilled ? COLOURS[0] : "transparent",
    line: isFilled ? COLOURS[0] : GREY,
  };
}

function withInterval(row) {
  const interval = row.low === null || row.low === undefined
    ? "" : ` (${shortNumber(row.low)} to ${shortNumber(row.high)})`;
  return `${shortNumber(row.value)}${interval}`;
}

function drawForest(id, kind, rows, { members = [], references = [], choose = null } = {}) {
  const element = document.getElementById(id);
  if (!element || !rows.length) return Promise.resolve();
  const changes = {
    height: rows.length * FOREST_ROW_PX + FOREST_AXIS_PX,
    params: [{ name: "room", value: Math.max(120, element.clientWidth - 16) }],
  };
  return drawLayers(element, kind, { rows, members, references }, changes, { choose });
}
