// Going through the marks of a chart by keyboard: arrows, Home and End move, Enter chooses.

// `view()` is the chart's view, `places()` gives the rows of its data in their order, with `name` and `tooltip`;
// `at(row)` gives the coordinates of a row in the chart's own units.
function walkable(element, view, places, at) {
  if (element.tabIndex === 0) return;
  let current = -1;
  element.tabIndex = 0;
  element.setAttribute("role", "application");
  element.setAttribute("aria-roledescription", "chart; arrow keys go through its points, Enter chooses one");

  const mark = (point) => {
    const marked = (row) => (row === point ? { ...row, size: 4 * row.size, line: "currentColor", opacity: 1 } : row);
    redraw(view(), "points", places().map(marked));
  };
  const leave = () => {
    if (current < 0) return;
    current = -1;
    tooltip.hidden = true;
    mark(null);
  };
  const enter = (place, points) => {
    current = Math.min(Math.max(place, 0), points.length - 1);
    const point = points[current];
    mark(point);
    const [left, top] = originOf(element, view());
    const [x, y] = at(point);
    const [clientX, clientY] = [left + view().scale("x")(x), top + view().scale("y")(y)];
    showTooltip(null, { clientX, clientY }, null, point.tooltip);
    say(point.tooltip.replaceAll("\n", ", "));
  };
  element.addEventListener("keydown", (event) => {
    const points = places();
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };
    const isFirst = current < 0;
    if (!points.length) return;
    if (event.key in steps) enter(isFirst ? points.length - 1 : current + steps[event.key], points);
    else if (event.key === "Home") enter(0, points);
    else if (event.key === "End") enter(points.length - 1, points);
    else if (event.key === "Enter" && !isFirst) highlight.set(points[current].name);
    else return;
    event.preventDefault();
  });
  element.addEventListener("blur", leave);
}
