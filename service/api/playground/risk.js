// How many inputs are answered if so many of the answers may be wrong.

import { element, percent, svg } from "./dom.js";

const WIDTH = 360;
const HEIGHT = 170;
const MARGIN = { left: 44, right: 10, top: 12, bottom: 34 };

/** Show the slider of certified risks with its curve. Returns what the next request shall ask. */
export function createRisk(place, model, changed) {
  const { table, in_force: current } = model.policy;
  const normal = Math.max(0, table.findIndex((row) => row.max_error === current.max_error));
  let chosen = normal;
  const words = element("p", { id: "risk-words", class: "why", "aria-live": "polite" });
  const picture = element("div", { class: "curve" });
  const show = () => {
    words.replaceChildren(...inWords(model, table[chosen], mayAsk(model, table[chosen])));
    picture.replaceChildren(curve(model, table[chosen]));
  };
  if (!table.length) {
    place.replaceChildren(element("p", { class: "why" }, "No risk could be certified for this model."));
    return { maxError: () => null };
  }
  place.replaceChildren(slider(table, normal, (position) => {
    chosen = position;
    show();
    changed();
  }), words, picture);
  show();
  return {
    maxError: () => (chosen === normal || !mayAsk(model, table[chosen]) ? null : table[chosen].max_error),
  };
}

/** Tell whether a request may ask for a row of the table: looser only if the operator allows it. */
function mayAsk(model, row) {
  const { allow_looser: allowLooser, in_force: current } = model.policy;
  return allowLooser || row.threshold >= current.min_confidence;
}

function slider(table, normal, choose) {
  const text = (row) => `at most ${percent(row.max_error)} of the answers wrong`;
  const input = element("input", {
    id: "max-error",
    type: "range",
    min: 0,
    max: Math.max(1, table.length - 1),
    step: 1,
    value: normal,
    disabled: table.length === 1,
    "aria-valuetext": text(table[normal]),
    "aria-describedby": "risk-words",
  });
  const follow = () => {
    const share = table.length === 1 ? 1 : Number(input.value) / (table.length - 1);
    input.style.setProperty("--share", `${share * 100}%`);
  };
  input.addEventListener("input", () => {
    const position = Number(input.value);
    input.setAttribute("aria-valuetext", text(table[position]));
    follow();
    choose(position);
  });
  follow();
  return element(
    "div",
    { class: "slider" },
    element("label", { for: "max-error" }, "Errors among the answers, at most"),
    input,
    element("div", { class: "ticks", "aria-hidden": "true" },
      ...table.map((row) => element("span", {}, percent(row.max_error)))),
  );
}

function inWords(model, row, isAllowed) {
  const tested = testedRow(model, row);
  const measured = tested
    ? `On test data it then answers ${percent(tested.coverage.value)}; of these answers ${percent(tested.risk.value)} are wrong.`
    : `On calibration data it then answers ${percent(row.coverage)}.`;
  const refused = `This server does not go beyond ${percent(model.policy.in_force.max_error)}: the verdict above keeps to it.`;
  return [
    `${measured} Least confidence: ${percent(row.threshold)}.`,
    ...(isAllowed ? [] : [element("strong", { class: "note" }, refused)]),
  ];
}

const testedRow = (model, row) =>
  model.evaluation?.table.find((each) => each.max_error === row.max_error);

/** Return the drawing: share answered to the right, share of wrong answers upwards. */
function curve(model, row) {
  const tested = testedRow(model, row);
  const points = model.evaluation?.risk_coverage ??
    model.policy.table.map((each) => [each.coverage, each.max_error]);
  const coverage = tested?.coverage.value ?? row.coverage;
  const risk = tested?.risk.value ?? row.max_error;
  const most = Math.max(...points.map(([, y]) => y), row.max_error) * 1.15;
  const x = (share) => MARGIN.left + share * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (share) => HEIGHT - MARGIN.bottom - (share / most) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const floor = y(0);
  const box = (from, to, name) =>
    svg("rect", { class: name, x: x(from), y: MARGIN.top, width: Math.max(0, x(to) - x(from)), height: floor - MARGIN.top });
  const text = (content, attributes) => svg("text", attributes, content);
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `Risk–coverage curve: at most ${percent(row.max_error)} wrong, ${percent(coverage)} answered.` },
    box(0, coverage, "area-answered"),
    box(coverage, 1, "area-unknown"),
    svg("path", { class: "limit", d: `M${x(0)} ${y(row.max_error)}H${x(1)}` }),
    svg("path", { class: "line", d: points.map(([a, b], n) => `${n ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("") }),
    svg("path", { class: "axis", d: `M${x(0)} ${MARGIN.top}V${floor}H${x(1)}` }),
    svg("path", { class: "now", d: `M${x(coverage)} ${MARGIN.top}V${floor}` }),
    svg("circle", { class: "point", cx: x(coverage), cy: y(risk), r: 5 }),
    text(percent(row.max_error), { x: x(0) - 5, y: y(row.max_error) + 4, "text-anchor": "end" }),
    ...(y(row.max_error) < floor - 14 ? [text("0", { x: x(0) - 5, y: floor + 4, "text-anchor": "end" })] : []),
    ...[0, 0.5, 1].map((share) => text(percent(share), { x: x(share), y: floor + 14, "text-anchor": share === 1 ? "end" : share ? "middle" : "start" })),
    text("share answered →", { class: "title", x: (x(0) + x(1)) / 2, y: HEIGHT - 5, "text-anchor": "middle" }),
    text("wrong ↑", { class: "title", x: x(0) + 6, y: MARGIN.top + 12 }),
  );
}
