// Similarity of replicates over that of random groups.

function startReplicates(data) {
  const words = { null: "random groups", replicates: "perturbations" };
  const bins = data.bins.map((bin) => ({
    ...bin,
    fill: bin.kind === "null" ? GREY : COLOURS[0],
    tooltip: `${shortNumber(bin.low)} to ${shortNumber(bin.high)}\n${bin.count} ${words[bin.kind]}`,
  }));
  const references = data.thresholds.map((value) => ({ value }));
  return drawLayers(document.getElementById("replicates-chart"), "replicates", { bins, references });
}
