// What the server does just now, drawn from /metrics.

import { ask } from "./api.js";
import { element, percent, short, svg } from "./dom.js";
import { buckets, parseMetrics, quantile, sum, sumBy } from "./metrics.js";

const PERIOD_MS = 2000;
const MOST_POLLS = 60;
const WINDOW_POLLS = 15; // latency is that of the last half minute
const WIDTH = 600;
const HEIGHT = 240;

/** Return what draws the tab "Live" in `place`, while it is started. */
export function createLive(place, warn) {
  let timer = 0;
  let starts = 0; // a poll of an earlier start does not go on
  let polls = [];

  async function poll() {
    const start = starts;
    try {
      if (document.hidden && polls.length) return;
      const samples = parseMetrics(await (await ask("metrics")).text());
      polls = [...polls, { at: performance.now() / 1000, samples }].slice(-MOST_POLLS);
      warn(null);
      show(place, polls);
    } catch (error) {
      showFailure(place, error);
      if (error.status === 401) warn(error);
    } finally {
      if (timer && start === starts) timer = setTimeout(poll, PERIOD_MS);
    }
  }
  return {
    start() {
      if (timer) return;
      if (!polls.length) place.replaceChildren(element("p", { class: "why" }, "Asking /metrics …"));
      timer = -1;
      starts += 1;
      poll();
    },
    stop() {
      clearTimeout(timer);
      timer = 0;
    },
  };
}

function showFailure(place, error) {
  const why = error.status === 404
    ? "The operator has put the metrics elsewhere, and this page cannot see them."
    : error.message;
  place.replaceChildren(element("section", { class: "card" },
    element("h2", {}, "The metrics are not to be had here"),
    element("p", { class: "why" }, why)));
}

function show(place, polls) {
  const now = polls.at(-1).samples;
  const before = polls.at(-1 - Math.min(WINDOW_POLLS, polls.length - 1)).samples;
  const recent = buckets(now, "dunno_request_duration_seconds", polls.length > 1 ? before : []);
  const isRecent = polls.length > 1 && recent.at(-1)?.[1] > 0;
  const latency = isRecent ? recent : buckets(now, "dunno_request_duration_seconds");
  const span = polls.length > WINDOW_POLLS ? "in the last half minute" : "since this page looks";
  const rates = ratesOf(polls);
  place.replaceChildren(
    element("div", { class: "columns" },
      card("Requests a second", rate(rates.at(-1)), sparkline(rates)),
      card("Latency", latencyText(latency),
        element("p", { class: "soft" }, isRecent ? `From the server’s histogram, ${span}.` : `Since the server’s start; nothing came ${span}.`),
        histogram(latency, (edge) => (edge < 1 ? `${short(edge * 1000)} ms` : `${short(edge)} s`), "Requests by duration, up to")),
      card("Verdicts", `${Math.round(sum(now, "dunno_predictions_total")).toLocaleString("en")} rows since the start`, verdicts(now)),
      card("Batch sizes", batchText(now),
        histogram(buckets(now, "dunno_batch_rows"), (edge) => short(edge), "Batches by rows, up to")),
    ),
  );
}

function card(title, value, ...content) {
  return element("section", { class: "card" }, element("h2", {}, title), element("p", { class: "big" }, value), ...content);
}

const rate = (value) => (value === undefined ? "…" : `${value >= 10 ? Math.round(value) : value.toFixed(1)} /s`);

function ratesOf(polls) {
  const total = ({ samples }) => sum(samples, "dunno_requests_total");
  return polls.slice(1).map((poll, place) =>
    Math.max(0, (total(poll) - total(polls[place])) / (poll.at - polls[place].at)));
}

function sparkline(rates) {
  const most = Math.max(1, ...rates);
  const x = (place) => WIDTH - ((rates.length - 1 - place) * WIDTH) / (MOST_POLLS - 2);
  const y = (value) => HEIGHT - 8 - (value / most) * (HEIGHT - 24);
  const points = rates.map((value, place) => `${x(place).toFixed(1)} ${y(value).toFixed(1)}`);
  const label = "Requests a second in the last two minutes";
  return element("div", {},
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label, class: "chart" },
      svg("path", { class: "axis", d: `M0 ${HEIGHT - 8}H${WIDTH}` }),
      ...(points.length ? [
        svg("path", { class: "under", d: `M${x(0).toFixed(1)} ${HEIGHT - 8}L${points.join("L")}V${HEIGHT - 8}Z` }),
        svg("path", { class: "line", d: `M${points.join("L")}` }),
      ] : [])),
    element("p", { class: "soft" }, rates.length ? `The last two minutes; at most ${rate(Math.max(...rates))}.` : "Two looks make a rate."));
}

function latencyText(cumulative) {
  const text = (share) => {
    const seconds = quantile(cumulative, share);
    return seconds === null ? "–" : `${short(Number((seconds * 1000).toPrecision(2)))} ms`;
  };
  return `p50 ${text(0.5)} · p99 ${text(0.99)}`;
}

function batchText(samples) {
  const count = sum(samples, "dunno_batch_rows_count");
  if (!count) return "none yet";
  const mean = String(Number((sum(samples, "dunno_batch_rows_sum") / count).toFixed(1)));
  return `${mean} ${mean === "1" ? "row" : "rows"} on average`;
}

/** Return the bars of a histogram as a table; empty buckets at either end are left out. */
function histogram(cumulative, edgeText, title) {
  const counts = cumulative.map(([edge, count], place) => [edge, count - (cumulative[place - 1]?.[1] ?? 0)]);
  const filled = counts.map(([, count]) => count > 0);
  const shown = counts.slice(Math.max(0, filled.indexOf(true)), filled.lastIndexOf(true) + 1);
  if (!filled.includes(true)) return element("p", { class: "soft" }, "Nothing has been counted yet.");
  const most = Math.max(...shown.map(([, count]) => count));
  return element("table", { class: "bars is-plain" },
    element("caption", { class: "hidden" }, title),
    element("tbody", {}, ...shown.map(([edge, count]) => {
      const fill = element("span", { class: "fill" });
      fill.style.width = `${(count / most) * 100}%`;
      return element("tr", {},
        element("th", { scope: "row" }, element("span", {}, edge === Infinity ? "more" : `≤ ${edgeText(edge)}`)),
        element("td", { class: "track", "aria-hidden": "true" }, element("span", { class: "rail" }, fill)),
        element("td", { class: "number" }, Math.round(count).toLocaleString("en")));
    })));
}

/** Return a line for each model that has judged anything: what it answered, and why not. */
function verdicts(samples) {
  const rows = samples.filter(({ name, value }) => name === "dunno_predictions_total" && value > 0);
  const names = [...new Set(rows.map(({ labels }) => labels.model))];
  if (!names.length) return element("p", { class: "soft" }, "No row has been judged yet.");
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Verdicts by model" },
    element("table", { class: "plain" },
      element("thead", {}, element("tr", {},
        ...["Model", "Rows", "Answered", "Unlike", "Ambiguous", "Unsure"].map((text) => element("th", { scope: "col" }, text)))),
      element("tbody", {}, ...names.map((name) => verdictLine(name, rows.filter(({ labels }) => labels.model === name))))));
}

function verdictLine(name, rows) {
  const total = rows.reduce((all, { value }) => all + value, 0);
  const reasons = sumBy(rows, "dunno_predictions_total", "reason");
  const answered = sumBy(rows, "dunno_predictions_total", "verdict").get("answer") ?? 0;
  const share = (value) => element("td", { class: "number" }, percent((value ?? 0) / total));
  return element("tr", {},
    element("th", { scope: "row" }, name),
    element("td", { class: "number" }, Math.round(total).toLocaleString("en")),
    share(answered),
    ...["out_of_distribution", "ambiguous", "low_confidence"].map((reason) => share(reasons.get(reason))));
}
