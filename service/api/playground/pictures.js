// A picture that is drawn, dropped, pasted, chosen or taken.

import { createCamera } from "./camera.js";
import { element } from "./dom.js";
import { exampleChip } from "./examples.js";
import { SIDE, blank, cropped, fitted, fromInstance, inverted, landscape, limited, noise, paintStrokes, scribble } from "./canvases.js";

/** Return the input of a model of pictures. */
export function createPictures(model, changed) {
  const { width, height, channels } = model.input;
  let strokes = [];
  let picture = null;
  const canvas = element("canvas", {
    id: "drawing",
    width: SIDE,
    height: SIDE,
    role: "img",
    "aria-label": "Drawing area. Without a mouse, choose a file or an example.",
  });
  const context = canvas.getContext("2d");
  const preview = element("canvas", { class: "preview", width, height, "aria-hidden": "true" });
  const hint = element("p", { class: "hint", "aria-hidden": "true" }, "Draw here");

  function paint() {
    context.fillStyle = "#fff";
    context.fillRect(0, 0, SIDE, SIDE);
    if (picture) context.drawImage(fitted(picture, SIDE, SIDE), 0, 0);
    paintStrokes(context, strokes);
    hint.hidden = strokes.length > 0 || picture !== null;
    const sent = toSend();
    const small = preview.getContext("2d");
    small.clearRect(0, 0, width, height);
    small.filter = channels === 1 ? "grayscale(1)" : "none";
    if (sent) small.drawImage(fitted(sent, width, height), 0, 0);
  }
  const update = () => {
    paint();
    changed();
  };
  const toSend = () => picture ?? (strokes.length ? cropped(strokes, sendSide()) : null);
  const sendSide = () => Math.min(448, Math.max(112, 4 * Math.max(width, height)));
  const showPicture = (next) => {
    strokes = [];
    picture = next;
    update();
  };
  const draw = (next) => {
    picture = null;
    strokes = next;
    update();
  };
  async function open(file) {
    const bitmap = await createImageBitmap(file).catch(() => null);
    if (!bitmap) {
      hint.textContent = "That is no picture.";
      showPicture(null);
      return;
    }
    hint.textContent = "Draw here";
    showPicture(limited(bitmap, sendSide()));
  }

  listenToPen(canvas, {
    begin: (point) => {
      picture = null;
      strokes.push([point]);
      paint();
    },
    go: (point) => {
      strokes.at(-1).push(point);
      paint();
    },
    end: update,
  });
  const chooser = element("input", {
    id: "file",
    type: "file",
    accept: "image/*",
    onchange: () => chooser.files[0] && open(chooser.files[0]),
  });
  const camera = createCamera(showPicture, sendSide());
  const button = (text, onclick) => element("button", { type: "button", onclick }, text);
  const stage = element("div", { class: "stage" }, canvas, hint);
  const node = element(
    "div",
    {
      class: "pictures",
      ondragover: (event) => event.preventDefault(),
      ondrop: (event) => {
        event.preventDefault();
        if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
      },
    },
    stage,
    element(
      "div",
      { class: "beside" },
      element("div", { class: "buttons" },
        button("Undo", () => (picture ? showPicture(null) : draw(strokes.slice(0, -1)))),
        button("Clear", () => draw([])),
        element("label", { class: "button", for: "file" }, "Choose a file"),
        chooser,
        ...(camera ? [camera.button] : [])),
      element("p", { class: "soft" }, "Draw with mouse, pen or finger, or drop or paste a picture."),
      element("div", { class: "sees" }, preview,
        element("span", { class: "soft" }, `About what the model gets: ${width} × ${height}${channels === 1 ? ", grey" : ""}`)),
    ),
    ...(camera ? [camera.panel] : []),
  );
  const onPaste = (event) => {
    const file = [...(event.clipboardData?.files ?? [])][0];
    if (file) open(file);
  };
  addEventListener("paste", onPaste);
  paint();

  return {
    node,
    invitation: "Draw or choose a picture, and the verdict appears here.",
    async payload() {
      const sent = toSend();
      if (!sent) return null;
      const b64 = sent.toDataURL("image/png").split(",")[1]; // toBlob waits until all is idle
      const bytes = Uint8Array.from(atob(b64), (letter) => letter.charCodeAt(0));
      return { type: "image/png", body: bytes, instance: { b64 } };
    },
    examples(golden) {
      return golden.map((example) => {
        const own = fromInstance(example.instance, channels);
        const small = element("canvas", { width, height, "aria-hidden": "true" });
        small.getContext("2d").drawImage(own, 0, 0);
        const chip = exampleChip(example, small, () => showPicture(own));
        chip.classList.add("has-picture");
        return chip;
      });
    },
    strange() {
      let number = 1;
      const choices = [
        ["Scribble", () => draw(scribble((number += 1)))],
        ["Noise", () => showPicture(noise(width, height))],
        ["Landscape", () => showPicture(landscape(sendSide()))],
        ["Inverted", () => showPicture(inverted(toSend() ?? blank(width, height)))],
      ];
      return choices.map(([text, onclick]) =>
        element("button", { type: "button", class: "chip", onclick }, text));
    },
    close() {
      removeEventListener("paste", onPaste);
      camera?.stop();
    },
  };
}

function listenToPen(canvas, { begin, go, end }) {
  let isDown = false;
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * SIDE,
      ((event.clientY - box.top) / box.height) * SIDE,
    ];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    isDown = true;
    begin(point(event));
  });
  canvas.addEventListener("pointermove", (event) => isDown && go(point(event)));
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => {
      if (isDown) end();
      isDown = false;
    });
  }
}
