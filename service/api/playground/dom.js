// Elements and numbers as the pages show them.

const SVG = "http://www.w3.org/2000/svg";

/** Return a new element. Attributes named on… are listeners; null and false leave one out. */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** Return a new element of a drawing. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

export const code = (text) => element("code", {}, text);

/** Return text with what stands between backticks as code. */
export const prose = (text) => text.split("`").map((part, at) => (at % 2 ? code(part) : part));

export const byId = (id) => document.getElementById(id);

/** Return a share as a percentage with as many digits as tell something. */
export function percent(share) {
  const value = share * 100;
  const distance = Math.min(value, 100 - value);
  const digits = value === 0 || value === 100 || distance >= 10 ? 0 : distance >= 1 ? 1 : 2;
  if (value > 0 && value < 0.01) return "< 0.01 %";
  if (value < 100 && value > 99.99) return "> 99.99 %";
  return `${trimmed(value.toFixed(digits))} %`;
}

/** Return a number with at most four significant digits. */
export function short(value) {
  return String(Number(value.toPrecision(4)));
}

function trimmed(text) {
  return text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text;
}

/** Return words in a row: "4", "4 or 9", "3, 4 or 9". */
export function listed(words, last = "or") {
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} ${last} ${words.at(-1)}`;
}

/** Return radio buttons that look like pills; `choose` is told the value of the chosen one. */
export function pills(name, options, chosen, choose) {
  return options.map(({ value, text, title }) =>
    element(
      "label",
      { class: "pill", title },
      element("input", {
        type: "radio",
        name,
        value,
        checked: value === chosen,
        onchange: () => choose(value),
      }),
      element("span", {}, text),
    ),
  );
}
