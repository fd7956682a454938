// Buttons for the rows that come with a model.

import { element } from "./dom.js";

/** Return in words what the model says to an example. */
export function saying(example) {
  if (example.verdict === "answer") return `answered: ${example.label}`;
  return `not answered: ${example.reason.replaceAll("_", " ")}`;
}

/** Return a button that shows an example; `content` is a text or a picture. */
export function exampleChip(example, content, choose) {
  const isAnswered = example.verdict === "answer";
  const says = isAnswered ? example.label : "?";
  return element(
    "button",
    {
      type: "button",
      class: `chip ${isAnswered ? "is-answered" : "is-unknown"}`,
      title: saying(example),
      onclick: choose,
    },
    content,
    element("span", { class: "says", "aria-hidden": "true" }, says),
    element("span", { class: "hidden" }, ` ${saying(example)}`),
  );
}
