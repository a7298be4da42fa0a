// Paired differences between tables, around 0.

function startPairedComparison(data) {
  const rows = data.rows.map((row, place) => forestRow(
    {
      ...row,
      label: `${row.task}, ${row.metric}: ${row.table} \u2212 ${row.against}`,
      tooltip: `${row.table} against ${row.against}\n${row.task}, ${row.metric}\n${withInterval(row)}\n` +
        `${row.shared} shared`,
    },
    place,
    row.is_certain,
  ));
  return drawForest("paired-comparison-chart", "paired_comparison", rows, { references: [{ value: 0 }] });
}
