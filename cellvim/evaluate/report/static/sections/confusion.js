// Confusion of the probe's labels, one split at a time.

const confusionDrawn = new Set();

// The table leaves out pairs that never occur; the drawing shows them as empty.
function confusionCells(split) {
  const known = new Map(split.cells.map((one) => [JSON.stringify([one.label, one.predicted]), one]));
  return split.labels.flatMap((label) => split.labels.map((predicted) => {
    const found = known.get(JSON.stringify([label, predicted]));
    const share = found?.share ?? 0;
    const interval = found && found.low !== null ? ` (${shortNumber(found.low)} to ${shortNumber(found.high)})` : "";
    return {
      label,
      predicted,
      fill: share > 0 ? viridis(share) : "currentColor",
      opacity: share > 0 ? 1 : 0.06,
      tooltip: `${label}\ntaken for ${predicted}\n${shortNumber(share)}${interval} of its wells, ${found?.count ?? 0} in all`,
    };
  }));
}

function drawConfusion(data, number) {
  const split = data.splits[number];
  const element = document.querySelector(`[data-confusion="${number}"]`);
  if (!element || confusionDrawn.has(number)) return Promise.resolve();
  confusionDrawn.add(number);
  const room = Math.round(Math.min(160, element.clientWidth * 0.28));
  const side = Math.min(34, Math.max(13, (element.clientWidth - room) / split.labels.length));
  const changes = {
    height: Math.round(side * split.labels.length + room + 44),
    params: [{ name: "room", value: room }],
  };
  return drawKeepingText(element, "confusion", { cells: confusionCells(split) }, changes);
}

function startConfusion(data) {
  const choice = document.getElementById("confusion-split");
  choice?.addEventListener("change", () => {
    for (const part of document.querySelectorAll(".confusion-split")) part.hidden = part.dataset.split !== choice.value;
    drawConfusion(data, Number(choice.value));
  });
  return drawConfusion(data, 0);
}
