// A form with a slider and a number for each field.

import { element, short } from "./dom.js";
import { exampleChip } from "./examples.js";

const STEPS = 200; // of a slider, at least
const MOST_WHOLE = 20; // a field with whole bounds so near to each other counts something
const MARGIN = 0.3; // of the typical span, beyond it on either side

/** Return the input of a model of features. */
export function createFeatures(model, changed) {
  const fields = model.input.fields.map((field, place) => createField(field, place, changed));
  const write = (values) => {
    fields.forEach((field, place) => field.write(values[place]));
    changed();
  };
  const read = () => fields.map((field) => field.read());
  fields.forEach((field, place) => field.write(model.examples?.[0]?.instance[place] ?? field.middle));

  return {
    node: element("div", { class: "fields" }, ...fields.map((field) => field.node)),
    invitation: "Fill in the form, and the verdict appears here.",
    async payload() {
      const values = read();
      const missing = fields.filter((field, place) => values[place] === null && !field.nullable);
      if (missing.length) {
        this.invitation = `Fill in ${missing.map((field) => field.name).join(", ")}.`;
        return null;
      }
      const instance = Object.fromEntries(fields.map((field, place) => [field.name, values[place]]));
      const body = JSON.stringify({ instances: [instance] });
      return { type: "application/json", body, instance };
    },
    examples(golden) {
      return golden.map((example, number) =>
        exampleChip(example, `Row ${number + 1}`, () => write(example.instance)));
    },
    strange() {
      const changes = [
        ["Values × 1000", (values) => values.map((value) => value === null ? null : value * 1000)],
        ["Columns reversed", (values) => [...values].reverse()],
        ["All zeros", (values) => values.map(() => 0)],
      ];
      return changes.map(([text, change]) =>
        element("button", { type: "button", class: "chip", onclick: () => {
          write(change(read()).map((value, place) => fields[place].allowed(value)));
        } }, text));
    },
    close() {},
  };
}

function createField(field, place, changed) {
  const range = rangeOf(field);
  const id = `field-${place}`;
  const unit = field.unit ? element("span", { class: "soft" }, ` ${field.unit}`) : null;
  const number = element("input", {
    id,
    type: "number",
    step: "any",
    min: field.minimum,
    max: field.maximum,
    placeholder: field.nullable ? "missing" : null,
    "aria-describedby": `${id}-range`,
  });
  const slider = range && element("input", {
    type: "range",
    ...range,
    "aria-label": `${field.name}, slider`,
  });
  number.addEventListener("input", () => {
    follow(slider, number.value);
    changed();
  });
  slider?.addEventListener("input", () => {
    number.value = short(Number(slider.value));
    follow(slider, number.value);
    changed();
  });
  return {
    name: field.name,
    nullable: field.nullable,
    middle: field.nullable ? null : middleOf(field),
    node: element(
      "div",
      { class: "field" },
      element("label", { for: id }, field.name.replaceAll("_", " "), unit),
      slider ?? element("span"),
      number,
      element("span", { id: `${id}-range`, class: "hidden" }, boundsOf(field)),
    ),
    read: () => (number.value === "" || !Number.isFinite(number.valueAsNumber) ? null : number.valueAsNumber),
    write(value) {
      number.value = value === null ? "" : String(Number(value.toPrecision(7)));
      follow(slider, number.value);
    },
    allowed(value) {
      if (value === null) return field.nullable ? null : middleOf(field);
      return Math.max(field.minimum ?? -Infinity, Math.min(field.maximum ?? Infinity, value));
    },
  };
}

function follow(slider, text) {
  if (!slider) return;
  slider.classList.toggle("is-missing", text === "");
  if (text !== "") slider.value = text;
  const [low, high] = [Number(slider.min), Number(slider.max)];
  const share = (Number(slider.value) - low) / (high - low);
  slider.style.setProperty("--share", `${share * 100}%`);
}

/** Return bounds and step of a field's slider; nothing if it has no range at all. */
function rangeOf(field) {
  const { minimum, maximum, typical } = field;
  const isWhole = [minimum, maximum, ...(typical ?? [])].every(Number.isInteger);
  if (isWhole && maximum - minimum <= MOST_WHOLE) return { min: minimum, max: maximum, step: 1 };
  if (!typical && (minimum === null || maximum === null)) return null;
  const [low, high] = typical ?? [minimum, maximum];
  const margin = typical ? (high - low) * MARGIN || Math.abs(high) * MARGIN || 1 : 0;
  const least = Math.max(minimum ?? -Infinity, low - margin);
  const most = Math.min(maximum ?? Infinity, high + margin);
  const step = 10 ** Math.floor(Math.log10((most - least) / STEPS));
  const tidy = (value, round) => Number((round(value / step) * step).toPrecision(10));
  return { min: tidy(least, Math.floor), max: tidy(most, Math.ceil), step };
}

function middleOf({ minimum, maximum, typical }) {
  const [low, high] = typical ?? [minimum ?? 0, maximum ?? 0];
  return Number(((low + high) / 2).toPrecision(4));
}

function boundsOf({ minimum, maximum, typical, nullable }) {
  const parts = [];
  if (minimum !== null) parts.push(`at least ${minimum}`);
  if (maximum !== null) parts.push(`at most ${maximum}`);
  if (typical) parts.push(`usually ${typical[0]} to ${typical[1]}`);
  if (nullable) parts.push("may be left empty");
  return parts.join(", ");
}
