// Does a measure depend on where a well lies? Shares of its variance that rows and columns explain, and the edge.

function plateEffects(plate, places) {
  if (places.length < 8) return null;
  const middle = mean(places.map((place) => place.value));
  const total = places.reduce((sum, place) => sum + (place.value - middle) ** 2, 0);
  if (total === 0) return null;
  const isEdge = ({ row, column }) => row === 1 || column === 1 || row === plate.rows || column === plate.columns;
  return {
    rows: explained(places, (place) => place.row, middle, total),
    columns: explained(places, (place) => place.column, middle, total),
    edge: meanOf(places.filter(isEdge)),
    inner: meanOf(places.filter((place) => !isEdge(place))),
    mean: middle,
  };
}

// Sum of squares between groups over that of all, and what it is on average if groups do not matter.
function explained(places, groupOf, middle, total) {
  const groups = new Map();
  for (const place of places) {
    const key = groupOf(place);
    groups.set(key, [...(groups.get(key) ?? []), place.value]);
  }
  let between = 0;
  for (const values of groups.values()) between += values.length * (mean(values) - middle) ** 2;
  return { share: between / total, chance: (groups.size - 1) / (places.length - 1) };
}

const meanOf = (places) => (places.length ? mean(places.map((place) => place.value)) : null);

function effectsInWords(effects) {
  if (!effects) return "";
  const { rows, columns, edge, inner } = effects;
  const edges = edge === null || inner === null ? "" : ` Edge wells average ${shortNumber(edge)}, inner ones ${shortNumber(inner)}.`;
  return (
    `Rows explain ${percent(rows.share)} of the differences (${percent(rows.chance)} by chance), ` +
    `columns ${percent(columns.share)} (${percent(columns.chance)}).${edges}`
  );
}
