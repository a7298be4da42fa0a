// Measures of batch beside those of biology.

function startBatchOrBiology(data) {
  const rows = data.rows.map((row, place) => forestRow(
    { ...row, tooltip: `${row.label}\n${withInterval(row)}\nchance ${shortNumber(row.chance)}` },
    place,
    row.is_biology,
  ));
  return drawForest("batch-or-biology-chart", "batch_or_biology", rows);
}
