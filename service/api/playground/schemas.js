// JSON schemas as tables of their fields.

import { code, element, prose } from "./dom.js";

const DEEPEST = 4;

/** Return the name of a schema: that of its definition, or its type. */
export function nameOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.map(nameOf).join(" | ");
  if (Array.isArray(schema.type)) return schema.type.join(" | ");
  if (schema.type === "array") return `list of ${nameOf(schema.items ?? {})}`;
  if (schema.format === "binary") return "bytes";
  return schema.type ?? "anything";
}

/** Return the fields of a schema, and of the definitions that they name; nothing if it has none. */
export function schemaTable(schema, content, depth = 0, seen = new Set()) {
  const found = followed(schema, content);
  const fields = Object.entries(found.properties ?? {});
  if (!fields.length || depth > DEEPEST) {
    const title = schema.$ref ? [code(nameOf(schema)), " "] : [];
    const text = element("p", { class: "soft" }, ...title, ...prose(found.description ?? nameOf(found)));
    const names = references({ ...found, $ref: undefined }).filter((name) => !seen.has(name));
    names.forEach((name) => seen.add(name));
    return element("div", {}, text, ...names.map((name) => named(name, content, depth + 1, seen)));
  }
  const rows = fields.map(([name, field]) =>
    element("tr", {},
      element("td", {}, code(name)),
      element("td", {}, code(nameOf(field))),
      element("td", {}, meaning(field.description, boundsOf(field)))));
  const title = nameOf(schema);
  return element("div", {},
    element("table", { class: "plain" },
      element("thead", {}, element("tr", {},
        ...[title, "type", "meaning"].map((head) => element("th", { scope: "col" }, head)))),
      element("tbody", {}, ...rows)),
    ...inner(fields, content, depth, seen));
}

function inner(fields, content, depth, seen) {
  const found = fields.flatMap(([, field]) => references(field)).filter((name) => !seen.has(name));
  found.forEach((name) => seen.add(name));
  return [...new Set(found)].map((name) => named(name, content, depth + 1, seen));
}

const named = (name, content, depth, seen) =>
  schemaTable({ $ref: `#/components/schemas/${name}` }, content, depth, seen);

/** Return what a part of a document stands for: itself, or what it refers to. */
export function followed(part, content) {
  if (!part?.$ref) return part ?? {};
  return part.$ref.split("/").slice(1).reduce((found, name) => found?.[name], content) ?? {};
}

function references(schema) {
  if (schema.$ref) return [nameOf(schema)];
  const parts = [
    schema.items, typeof schema.additionalProperties === "object" ? schema.additionalProperties : null,
    ...(schema.anyOf ?? []), ...(schema.oneOf ?? []),
  ];
  return parts.filter(Boolean).flatMap(references);
}

/** Return what a part of a request or an answer means, with its bounds. */
export function meaning(description, bounds) {
  return element("span", {}, ...prose(description ?? ""), " ", element("span", { class: "soft" }, bounds));
}

export function boundsOf(schema) {
  const parts = [
    schema.exclusiveMinimum !== undefined && `above ${schema.exclusiveMinimum}`,
    schema.minimum !== undefined && `at least ${schema.minimum}`,
    schema.maximum !== undefined && `at most ${schema.maximum}`,
    schema.default !== undefined && schema.default !== null && `${JSON.stringify(schema.default)} unless given`,
  ];
  return parts.filter(Boolean).join(", ");
}

/** Return an example value as indented text. */
export function example(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 1);
  return element("pre", { tabindex: 0 }, code(text.length > 2000 ? `${text.slice(0, 2000)}…` : text));
}
