// Wells against dose, one small chart per compound; and Z' of each plate.

const GOOD_Z_PRIME = 0.5;

function drawDosePanel(data, number) {
  const panel = data.panels[number];
  const wells = panel.wells.map((well) => ({
    ...well,
    tooltip: `${well.name}\n${well.well} on ${well.plate}\ndose ${shortNumber(well.dose)} ${panel.unit}\n` +
      `projection ${shortNumber(well.projection)}`,
  }));
  const active = panel.lowest_active_dose === null ? [] : [{ dose: panel.lowest_active_dose }];
  const [lowest, highest] = data.limits;
  const params = [{ name: "lowest", value: lowest }, { name: "highest", value: highest }];
  const datasets = { wells, medians: panel.medians, controls: data.band ? [data.band] : [], active };
  const element = document.querySelector(`[data-dose="${number}"]`);
  return drawLayers(element, "dose_panel", datasets, { params }, { choose: "name" });
}

async function startDoseOverview(data) {
  for (const number of data.panels.keys()) await drawDosePanel(data, number);
  const rows = data.plates.map((plate, place) => forestRow(
    { ...plate, tooltip: `${plate.label}\nZ' ${shortNumber(plate.value)}` },
    place,
    plate.value >= GOOD_Z_PRIME,
  ));
  await drawForest("z-prime-chart", "z_prime", rows, { references: [{ value: GOOD_Z_PRIME }] });
}
