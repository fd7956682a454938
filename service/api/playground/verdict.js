// What the model says to one row, in words, bars and numbers.

import { byId, element, listed, percent } from "./dom.js";

const MOST_BARS = 12;
const MOST_CANDIDATES = 4;
const GUARANTEES = { certified: "Certified", cross_fitted: "Certified by cross-validation, so approximately" };

export function showEmpty(invitation) {
  clear();
  byId("verdict").className = "verdict";
  byId("verdict").replaceChildren(element("p", { class: "why" }, invitation));
}

export function showFailure(error) {
  clear();
  byId("verdict").className = "verdict is-failure";
  byId("verdict").replaceChildren(
    element("p", { class: "says" }, "Not taken"),
    element("p", { class: "why" }, error.message),
  );
}

function clear() {
  byId("bars").replaceChildren();
  byId("facts").replaceChildren();
}

/** Show the verdict on the only row of an answer. */
export function showVerdict(model, answer) {
  const [row] = answer.predictions;
  const isAnswer = row.verdict === "answer";
  const box = byId("verdict");
  box.className = `verdict ${isAnswer ? "is-answered" : "is-unknown"}`;
  box.replaceChildren(
    element("p", { class: "says" }, isAnswer ? row.label : "I don’t know"),
    element("p", { class: "why" }, reasonOf(row, answer.policy)),
  );
  byId("bars").replaceChildren(bars(row, answer.policy));
  byId("facts").replaceChildren(...facts(row, answer, model));
}

function reasonOf(row, policy) {
  const best = bestOf(row);
  const least = percent(policy.min_confidence);
  switch (row.reason) {
    case "out_of_distribution":
      return `This is unlike what the model has learnt from. Of familiar inputs, ${percent(row.novelty_p)} look as strange; below ${percent(policy.novelty_alpha)} there is no answer.`;
    case "ambiguous":
      return `It may be ${listed(row.candidates)}. ${best} has ${percent(row.confidence)}; ${least} are asked for.`;
    case "low_confidence":
      return `${best} is only the best guess, with ${percent(row.confidence)}; ${least} are asked for.`;
    default:
      return `Sure enough: ${percent(row.confidence)}, where ${least} are asked for.`;
  }
}

const ranked = (row) => Object.entries(row.probabilities).sort(([, one], [, other]) => other - one);
const bestOf = (row) => ranked(row)[0][0];

function bars(row, policy) {
  const entries = Object.entries(row.probabilities);
  const shown = entries.length <= MOST_BARS ? entries : ranked(row).slice(0, MOST_BARS);
  const caption = entries.length <= MOST_BARS ? "Probabilities" : `The ${MOST_BARS} best probabilities`;
  const lines = shown.map(([label, probability]) => bar(label, probability, row, policy));
  return element(
    "table",
    { class: "bars" },
    element("caption", {}, caption),
    element("thead", { class: "hidden" }, element("tr", {},
      ...["Label", "Bar", "Probability"].map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...lines),
  );
}

function bar(label, probability, row, policy) {
  const fill = element("span", { class: "fill" });
  fill.style.width = `${probability * 100}%`;
  const mark = element("span", { class: "mark" });
  mark.style.left = `${policy.min_confidence * 100}%`;
  const isBest = label === bestOf(row);
  return element(
    "tr",
    { class: isBest ? (row.verdict === "answer" ? "is-answered" : "is-unknown") : null },
    element("th", { scope: "row" }, element("span", {}, label)),
    element("td", { class: "track", "aria-hidden": "true" }, element("span", { class: "rail" }, fill, mark)),
    element("td", { class: "number" }, percent(probability)),
  );
}

function facts(row, answer, model) {
  const { policy, stages } = answer;
  const served = (stages.decode ?? 0) + (stages.queue ?? 0) + (stages.run ?? 0) + (stages.decide ?? 0);
  const promised = policy.max_error === null ? "nothing" : `at most ${percent(policy.max_error)} of the answers wrong`;
  return [
    ["Familiar?", row.novelty_p === null ? "not measured" : `p = ${noveltyText(row.novelty_p)}`,
      row.novelty_p === null ? "" : `Novelty p-value: on familiar inputs it is spread evenly from 0 to 1. Below ${policy.novelty_alpha} the model does not answer.`],
    ["Candidates", candidatesOf(row), "What it may be, the most probable first."],
    ["Threshold", percent(policy.min_confidence), "Least confidence to answer; the thin line across the bars."],
    ["Promise", promised, promiseNote(policy, model.policy)],
    ["Time", `${served.toFixed(1)} ms`, stageText(stages, answer.roundTripMs)],
  ].map(([name, value, note]) =>
    element("div", {},
      element("dt", {}, name),
      element("dd", {}, value, note ? element("span", { class: "soft" }, note) : null)));
}

function promiseNote(policy, { confidence, mixture }) {
  const how = GUARANTEES[policy.guarantee];
  if (!how) return "Nothing was certified for these terms.";
  return `${how}, with ${percent(confidence)} probability, for inputs like these: ${mixture}.`;
}

function candidatesOf({ candidates }) {
  if (candidates.length <= MOST_CANDIDATES) return listed(candidates, "and");
  const more = candidates.length - MOST_CANDIDATES + 1;
  return `${candidates.slice(0, MOST_CANDIDATES - 1).join(", ")} and ${more} more`;
}

const noveltyText = (p) => p.toLocaleString("en", { maximumSignificantDigits: 2 });

function stageText(stages, roundTripMs) {
  const parts = Object.entries(stages).map(([name, ms]) => `${name} ${ms.toFixed(2)}`);
  return `${parts.join(" · ")} · there and back ${roundTripMs.toFixed(0)} ms`;
}
