// A text that is typed.

import { element } from "./dom.js";
import { exampleChip } from "./examples.js";

/** Return the input of a model of texts. */
export function createTexts(model, changed) {
  const area = element("textarea", {
    id: "text",
    rows: 9,
    spellcheck: "false",
    "aria-describedby": "text-note",
    oninput: changed,
  });
  const words = () => area.value.split(/\s+/).filter(Boolean);
  const write = (text) => {
    area.value = text;
    changed();
  };

  const first = model.examples?.[0]?.instance;
  if (first) area.value = first;
  return {
    node: element(
      "div",
      {},
      element("label", { for: "text" }, "Text"),
      area,
      element("p", { id: "text-note", class: "soft" },
        `The first ${model.input.max_tokens.toLocaleString("en")} words and marks are read.`),
    ),
    invitation: "Write something, and the verdict appears here.",
    async payload() {
      if (!area.value.trim()) return null;
      const body = JSON.stringify({ instances: [area.value] });
      return { type: "application/json", body, instance: area.value };
    },
    examples(golden) {
      return golden.map((example) =>
        exampleChip(example, opening(example.instance), () => write(example.instance)));
    },
    strange() {
      const plain = "These are the words of a text in the order in which they came";
      const source = () => (words().length > 5 ? words() : (first ?? plain).split(" "));
      return [
        ["Words shuffled", () => shuffled(source()).join(" ")],
        ["Random letters", () => source().map((word) => letters(word.length)).join(" ")],
        ["Source code", () => "import os\nfor name in sorted(os.listdir('.')):\n    if name.endswith('.py'):\n        print(name, os.path.getsize(name))"],
      ].map(([text, make]) =>
        element("button", { type: "button", class: "chip", onclick: () => write(make()) }, text));
    },
    close() {},
  };
}

const opening = (text) => `“${text.split(" ").slice(0, 4).join(" ")} …”`;

function shuffled(words) {
  const order = [...words];
  for (let last = order.length - 1; last > 0; last -= 1) {
    const other = Math.floor(Math.random() * (last + 1));
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}

function letters(length) {
  const letter = () => String.fromCharCode(97 + Math.floor(Math.random() * 26));
  return Array.from({ length }, letter).join("");
}
