// Recall of known relationships, by source.

function startRelationships(data) {
  const rows = data.sources.map((source, place) => forestRow(
    { ...source, tooltip: `${source.label}\nrecalled: ${withInterval(source)}\n${source.pairs} pairs` },
    place,
    source.low !== null && source.low > data.chance,
  ));
  return drawForest("relationships-chart", "relationships", rows, { references: [{ value: data.chance }] });
}
