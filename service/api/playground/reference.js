// The reference: every route of /openapi.json, by its tag.

import { ask, useKey } from "./api.js";
import { byId, code, element, prose } from "./dom.js";
import { boundsOf, example, followed, meaning, nameOf, schemaTable } from "./schemas.js";

const METHODS = ["get", "head", "post", "put", "patch", "delete"];

async function start() {
  const notice = byId("notice");
  notice.hidden = true;
  try {
    const content = await (await ask("openapi.json")).json();
    byId("version").textContent = `${content.info.title} ${content.info.version}. ${content.info.summary ?? ""}`;
    byId("routes").replaceChildren(...about(content), ...keys(content), ...sections(content));
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
  const told = content.tags ?? [];
  const place = (tag) => (told.findIndex(({ name }) => name === tag) + told.length + 1) % (told.length + 1);
  return [...byTag]
    .sort(([one], [other]) => place(one) - place(other))
    .map(([tag, routes]) =>
      element("section", { class: "card" }, element("h2", {}, tag),
        ...paragraphs(told.find(({ name }) => name === tag)?.description), ...routes));
}

function about({ info }) {
  const [, ...more] = paragraphs(info.description); // the first says what the summary does
  return more.length ? [element("section", { class: "card" }, element("h2", {}, "all routes"), ...more)] : [];
}

/** Return how a key is shown to this server, if it asks for one. */
function keys(content) {
  const ways = Object.values(content.components?.securitySchemes ?? {});
  if (!ways.length) return [];
  return [element("section", { class: "card", id: "security" },
    element("h2", {}, "keys"),
    element("p", {}, "This server asks for a key; one way to show it is enough."),
    element("ul", {}, ...ways.map(({ description }) => element("li", {}, ...prose(description)))))];
}

function need(operation, content) {
  const ways = operation.security ?? content.security;
  if (!content.security?.length) return null;
  return element("p", { class: "soft" }, ways.length ? "Needs a key." : "Needs no key.");
}

function route(method, path, operation, content) {
  const parts = [
    ...paragraphs(operation.description),
    need(operation, content),
    parameters((operation.parameters ?? []).map((each) => followed(each, content))),
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
  (text ?? "").split(/\n\s*\n/).filter(Boolean).map((each) => element("p", {}, ...prose(each)));

function table(title, heads, rows) {
  if (!rows.length) return null;
  return element("table", { class: "plain" },
    element("caption", { class: "hidden" }, title),
    element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...rows.map((cells) =>
      element("tr", {}, ...cells.map((cell) => element("td", {}, cell))))));
}

function parameters(list) {
  const rows = list.map((each) => [code(each.name), each.in, meaning(each.description, typeOf(each.schema))]);
  return table("Parameters", ["Parameter", "in", "meaning"], rows);
}

function typeOf(schema = {}) {
  return schema.enum ? nameOf(schema) : [schema.type, boundsOf(schema)].filter(Boolean).join(", ");
}

function bodies(body, content) {
  if (!body) return [];
  return Object.entries(body.content).map(([type, { schema, ...more }]) =>
    element("div", {},
      element("h3", {}, `Body ${type}`),
      schemaTable(schema ?? {}, content),
      ...examples(more, content)));
}

/** Return what can be unfolded of examples, one line each. */
function examples({ example: one, examples: many }, content) {
  const found = many ?? (one === undefined ? {} : { example: { value: one } });
  return Object.entries(found).map(([name, each]) => {
    const { summary, description, value } = followed(each, content);
    return element("details", { class: "example" },
      element("summary", {}, code(name), element("span", { class: "soft" }, ...prose(summary ?? ""))),
      element("div", {},
        description ? element("p", {}, ...prose(description)) : null,
        value === undefined ? null : example(value)));
  });
}

function responses(all, content) {
  const found = Object.entries(all).map(([status, each]) => [status, followed(each, content)]);
  const rows = found.map(([status, { description, content: bodiesByType, headers }]) => {
    const names = Object.entries(bodiesByType ?? {}).map(([type, { schema }]) =>
      element("div", {}, code([type, schema ? nameOf(schema) : ""].filter(Boolean).join(" · "))));
    const more = Object.keys(headers ?? {}).map((name) => element("div", {}, code(name)));
    return [
      code(status),
      element("span", {}, ...prose(description ?? "")),
      element("div", {}, ...names, ...more),
    ];
  });
  const first = found[0]?.[1]?.content?.["application/json"];
  return element("div", {},
    table("Responses", ["Status", "when", "body, headers"], rows),
    first?.schema ? schemaTable(first.schema, content) : "",
    ...found.flatMap(([, { content: bodiesByType }]) =>
      Object.values(bodiesByType ?? {}).flatMap((each) => examples(each, content))));
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key-value").value);
  byId("key").open = false;
  start();
});
start();
