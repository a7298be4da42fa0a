// Tables by how well they retrieve: a line where they are blocks of an encoder, else one row each.

function startLayerChoice(data) {
  const tooltip = (row) => `${row.label}\n${withInterval(row)}\nchosen by ${row.times_chosen} of ${data.folds} folds`;
  if (!data.has_blocks) {
    const rows = data.rows.map((row, place) => forestRow({ ...row, tooltip: tooltip(row) }, place, row.is_chosen));
    return drawForest("layer-choice-chart", "table_means", rows);
  }
  const blocks = data.rows.map((row) => ({
    ...row,
    tooltip: tooltip(row),
    fill: row.is_chosen ? COLOURS[0] : "transparent",
  }));
  return drawLayers(document.getElementById("layer-choice-chart"), "block_line", { blocks });
}
