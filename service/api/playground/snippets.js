// The request that was just made, to copy and run elsewhere.

import { hasKey } from "./api.js";
import { element, pills } from "./dom.js";

const LONG = 1500; // characters; a longer body is read from standard input by curl
const MOST_SHOWN = 120; // characters of one string; all of it is copied
const LANGUAGES = { curl: asCurl, Python: asPython, JavaScript: asJavaScript };

/** Return what shows the request as code in `place`. */
export function createSnippets(place) {
  let language = "curl";
  let request = null;
  const code = element("code");
  const said = element("span", { class: "soft", role: "status" });
  const copy = element("button", { type: "button", class: "copy", onclick: copyAll }, "Copy");
  const show = () => {
    code.textContent = request
      ? LANGUAGES[language](request.address, abridged(request.instance), isLong(request.instance))
      : "There is no request yet.";
    copy.disabled = request === null;
    said.textContent = "";
  };

  async function copyAll() {
    await copyText(LANGUAGES[language](request.address, request.instance, isLong(request.instance)));
    said.textContent = isAbridged(request.instance)
      ? "Copied, with what is shortened here."
      : "Copied.";
  }

  place.replaceChildren(
    element("div", { class: "row spread" },
      element("fieldset", { class: "pills small" },
        element("legend", { class: "hidden" }, "Language"),
        ...pills("language", Object.keys(LANGUAGES).map((value) => ({ value, text: value })), language,
          (value) => {
            language = value;
            show();
          })),
      element("div", { class: "row" }, said, copy)),
    element("pre", { tabindex: 0, role: "region", "aria-label": "Code" }, code),
  );
  show();
  return {
    show(address, instance) {
      const next = address ? { address, instance } : null;
      const isSame = JSON.stringify(next) === JSON.stringify(request);
      request = next;
      if (!isSame) show();
    },
  };
}

function abridged(value) {
  if (typeof value === "string" && value.length > MOST_SHOWN) return `${value.slice(0, MOST_SHOWN)}…`;
  if (Array.isArray(value)) return value.map(abridged);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, abridged(each)]));
  }
  return value;
}

const isLong = (instance) => JSON.stringify(instance).length > LONG;
const isAbridged = (value) => JSON.stringify(abridged(value)) !== JSON.stringify(value);

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function asCurl(address, instance, isFromInput) {
  const body = JSON.stringify({ instances: [instance] });
  const lines = [`curl -s ${quoted(address)}`, `-H 'Content-Type: application/json'`];
  if (hasKey()) lines.push(`-H "Authorization: Bearer $DUNNO_KEY"`);
  if (!isFromInput) return [...lines, `-d ${quoted(body)}`].join(" \\\n  ");
  return `${[...lines, "--data-binary @- <<'END'"].join(" \\\n  ")}\n${body}\nEND`;
}

function asPython(address, instance) {
  const { origin, pathname, searchParams } = new URL(address);
  const place = pathname.lastIndexOf("/predict/");
  const server = JSON.stringify(origin + pathname.slice(0, place));
  const model = decodeURIComponent(pathname.slice(place + "/predict/".length));
  const options = [...searchParams].map(([name, value]) => `${name}=${value}`);
  const asked = [JSON.stringify(model), `[${python(instance)}]`, ...options].join(", ");
  return [
    "# in the clone of Dunno: pip install -e '.[client]'",
    ...(hasKey() ? ["import os", ""] : []),
    "from dunno_client import Dunno",
    "",
    `with Dunno(${server}${hasKey() ? `, os.environ["DUNNO_KEY"]` : ""}) as dunno:`,
    `    answer = dunno.predict(${asked})`,
    "print(answer.predictions[0])",
  ].join("\n");
}

function python(value) {
  if (value === null) return "None";
  if (typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  const pairs = Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each)}`);
  return `{${pairs.join(", ")}}`;
}

function asJavaScript(address, instance) {
  const key = hasKey() ? ", Authorization: `Bearer ${key}`" : "";
  return [
    `const response = await fetch(${JSON.stringify(address)}, {`,
    `  method: "POST",`,
    `  headers: { "Content-Type": "application/json"${key} },`,
    `  body: JSON.stringify({ instances: [${JSON.stringify(instance)}] }),`,
    "});",
    "console.log((await response.json()).predictions[0]);",
  ].join("\n");
}

/** Copy a text, also where a page without TLS has no clipboard of its own. */
async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = element("textarea", { "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
