// The reference: every route of /openapi.json, by its tag.

import { ask, useKey } from "./api.js";
import { byId, element } from "./dom.js";
import { example, nameOf, schemaTable } from "./schemas.js";

const METHODS = ["get", "head", "post", "put", "patch", "delete"];

async function start() {
  const notice = byId("notice");
  notice.hidden = true;
  try {
    const content = await (await ask("openapi.json")).json();
    byId("version").textContent = `${content.info.title} ${content.info.version}. ${content.info.description ?? ""}`;
    byId("routes").replaceChildren(...sections(content));
  } catch (error) {
    notice.hidden = false;
    notice.textContent = error.message;
    byId("key").open = error.status === 401 || error.status === 403;
    if (byId("key").open) byId("key-value").focus();
  }
}

function sections(content) {
  const byTag = new Map();
  for (const [path, methods] of Object.entries(content.paths)) {
    for (const method of METHODS.filter((each) => methods[each])) {
      const tag = methods[method].tags?.[0] ?? "more";
      byTag.set(tag, [...(byTag.get(tag) ?? []), route(method, path, methods[method], content)]);
    }
  }
  const first = (tag) => (tag === "predict" ? 0 : 1);
  return [...byTag]
    .sort(([one], [other]) => first(one) - first(other))
    .map(([tag, routes]) =>
      element("section", { class: "card" }, element("h2", {}, tag), ...routes));
}

function route(method, path, operation, content) {
  const parts = [
    ...paragraphs(operation.description),
    parameters(operation.parameters ?? []),
    ...bodies(operation.requestBody, content),
    responses(operation.responses ?? {}, content),
  ];
  return element(
    "details",
    { open: operation.operationId === "predict" },
    element("summary", {},
      element("span", { class: "method" }, method.toUpperCase()),
      element("span", { class: "path" }, path),
      element("span", { class: "soft" }, operation.summary ?? "")),
    element("div", {}, ...parts.filter(Boolean)),
  );
}

const paragraphs = (text) =>
  (text ?? "").split(/\n\s*\n/).filter(Boolean).map((each) => element("p", {}, each));

function table(title, heads, rows) {
  if (!rows.length) return null;
  return element("table", { class: "plain" },
    element("caption", { class: "hidden" }, title),
    element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...rows.map((cells) =>
      element("tr", {}, ...cells.map((cell) => element("td", {}, cell))))));
}

const code = (text) => element("code", {}, text);

function parameters(list) {
  const rows = list.map((each) => [code(each.name), each.in, each.description ?? each.schema?.type ?? ""]);
  return table("Parameters", ["Parameter", "in", "meaning"], rows);
}

function bodies(body, content) {
  if (!body) return [];
  return Object.entries(body.content).map(([type, { schema, ...more }]) =>
    element("div", {},
      element("h3", {}, `Body ${type}`),
      schemaTable(schema ?? {}, content),
      ...examples(more)));
}

function examples({ example: one, examples: many }) {
  const found = Object.entries(many ?? (one === undefined ? {} : { example: { value: one } }));
  return found.slice(0, 8).map(([name, { summary, value }]) =>
    element("div", {}, element("p", { class: "soft" }, summary ?? name), example(value)));
}

function responses(all, content) {
  const rows = Object.entries(all).map(([status, { description, content: bodiesByType }]) => {
    const [type, { schema } = {}] = Object.entries(bodiesByType ?? {})[0] ?? [""];
    const name = schema ? nameOf(schema) : "";
    return [code(status), description ?? "", code([type, name].filter(Boolean).join(" · "))];
  });
  const first = Object.values(all)[0]?.content?.["application/json"]?.schema;
  return element("div", {},
    table("Responses", ["Status", "when", "body"], rows),
    first ? schemaTable(first, content) : "");
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key-value").value);
  byId("key").open = false;
  start();
});
start();
