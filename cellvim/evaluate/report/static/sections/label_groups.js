// Labels by how well their perturbations find each other, with the perturbations behind each.

function startLabelGroups(data) {
  const rows = data.labels.map((label, place) => forestRow(
    {
      label: label.label,
      value: label.value,
      chance: label.chance,
      tooltip: `${label.label}\nmAP ${shortNumber(label.value)}, chance ${shortNumber(label.chance)}\n` +
        `q ${shortNumber(label.q)}\n${label.perturbations} perturbations`,
    },
    place,
    label.is_significant,
  ));
  const members = data.labels.flatMap((label, place) => label.members.map((member) => ({
    row: place,
    value: member.ap,
    name: member.name,
    tooltip: `${member.name}\naverage precision ${shortNumber(member.ap)}`,
  })));
  return drawForest("label-groups-chart", "label_groups", rows, { members, choose: "name" });
}
