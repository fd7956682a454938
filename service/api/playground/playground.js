// The playground: a model is chosen, an input is made, the verdict is shown.

import { describeModel, hasKey, listModels, predict, predictPath, useKey } from "./api.js";
import { byId, element, pills } from "./dom.js";
import { createFeatures } from "./features.js";
import { createGlance } from "./glance.js";
import { createLive } from "./live.js";
import { createPictures } from "./pictures.js";
import { createRisk } from "./risk.js";
import { createSnippets } from "./snippets.js";
import { createTexts } from "./texts.js";
import { showEmpty, showFailure, showVerdict } from "./verdict.js";

const INPUTS = { features: createFeatures, image: createPictures, text: createTexts };
const PAUSE_MS = 120; // so long nothing may change before it is asked
const LIVE = "-live"; // no model has this name

let models = [];
let model = null;
let input = null;
let risk = null;
let wish = ""; // the model that was chosen last, its description may still be on its way
let asking = new AbortController();
let pause = 0;
const snippets = createSnippets(byId("code"));
createGlance(byId("glance"));
const live = createLive(byId("live"), warn);

function warn(error) {
  const notice = byId("notice");
  notice.hidden = error === null;
  if (error === null) return;
  notice.textContent = error.message;
  if (error.status === 401 || error.status === 403) {
    notice.textContent = `${hasKey() ? "The key was refused." : "This server asks for a key."} ${error.message}`;
    byId("key").open = true;
    byId("key-value").focus();
  }
}

async function start() {
  try {
    models = await listModels();
  } catch (error) {
    warn(error);
    return;
  }
  warn(null);
  if (!models.length) {
    warn(new Error("No model is served here."));
    return;
  }
  const options = models.map(({ name, description }) => ({
    value: name,
    text: name,
    title: description,
  }));
  const wanted = fromAddress();
  const name = models.some((each) => each.name === wanted) ? wanted : models[0].name;
  byId("models").replaceChildren(...pills("model", options, name, choose));
  await choose(name, wanted === LIVE);
}

/** Return what the address names behind its #; nothing if that is no encoded text. */
function fromAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

async function choose(name, isLive = false) {
  wish = name;
  let chosen;
  try {
    chosen = await describeModel(name);
  } catch (error) {
    warn(error);
    if (wish === name && model) pillOf(model.name).checked = true;
    return;
  }
  if (wish !== name) return;
  if (!isLive) history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  asking.abort();
  input?.close();
  model = chosen;
  byId("description").textContent = `${model.description} Version ${model.version}, runtime ${model.runtime}, device ${model.device}.`;
  risk = createRisk(byId("risk"), model, askSoon);
  input = INPUTS[model.input.kind](model, askSoon);
  byId("input").replaceChildren(input.node);
  byId("examples").replaceChildren(...exampleGroups());
  askSoon();
}

const pillOf = (name) => document.querySelector(`input[name="model"][value="${CSS.escape(name)}"]`);

function exampleGroups() {
  const golden = input.examples(model.examples ?? []);
  return [
    exampleGroup("What the model was checked with", golden),
    exampleGroup("Strange inputs", input.strange()),
  ].filter(Boolean);
}

function exampleGroup(title, buttons) {
  if (!buttons.length) return null;
  return element(
    "div",
    { class: "examples", role: "group", "aria-label": title },
    element("h3", {}, title),
    element("div", { class: "chips" }, ...buttons),
  );
}

function askSoon() {
  clearTimeout(pause);
  pause = setTimeout(askNow, PAUSE_MS);
}

async function askNow() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const path = predictPath(model.name, risk.maxError());
  try {
    const payload = await input.payload();
    if (signal.aborted) return;
    snippets.show(payload && new URL(path, document.baseURI).href, payload?.instance);
    if (payload === null) {
      showEmpty(input.invitation);
      return;
    }
    const answer = await predict(path, payload, signal);
    if (signal.aborted) return;
    warn(null);
    showVerdict(model, answer);
  } catch (error) {
    if (error.name === "AbortError") return;
    showFailure(error);
    if (error.status === 401 || error.status === 403) warn(error);
  }
}

function showTab(name) {
  for (const each of ["try", "live"]) {
    const tab = byId(`tab-${each}`);
    tab.setAttribute("aria-selected", String(each === name));
    tab.tabIndex = each === name ? 0 : -1;
    byId(each).hidden = each !== name;
  }
  const place = name === "live" ? LIVE : (model?.name ?? "");
  if (fromAddress() !== place && (model || name === "live")) {
    history.replaceState(null, "", `#${encodeURIComponent(place)}`);
  }
  if (name === "live") live.start();
  else live.stop();
}

function listenToTabs() {
  for (const name of ["try", "live"]) {
    byId(`tab-${name}`).addEventListener("click", () => showTab(name));
    byId(`tab-${name}`).addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      const other = name === "try" ? "live" : "try";
      showTab(other);
      byId(`tab-${other}`).focus();
    });
  }
}

function listenToAddress() {
  addEventListener("hashchange", () => {
    const wanted = fromAddress();
    if (wanted === LIVE) showTab("live");
    const button = pillOf(wanted);
    if (!button) return;
    button.checked = true;
    showTab("try");
    choose(wanted);
  });
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key-value").value);
  byId("key").open = false;
  start();
});
listenToTabs();
listenToAddress();
if (fromAddress() === LIVE) showTab("live");
start();
