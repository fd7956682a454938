// A picture from the camera, where the browser has one and lets pages use it.

import { element } from "./dom.js";
import { limited } from "./canvases.js";

/** Return a button and a panel that take pictures; nothing if there can be none. */
export function createCamera(take, side) {
  if (!navigator.mediaDevices?.getUserMedia) return null;
  let stream = null;
  const video = element("video", { autoplay: true, playsinline: true, "aria-label": "Camera" });
  video.muted = true;
  const shutter = element("button", { type: "button", onclick: shoot }, "Take the picture");
  video.addEventListener("playing", () => {
    shutter.disabled = false;
  });
  const said = element("p", { class: "soft", role: "status" });
  const panel = element(
    "div",
    { class: "camera", hidden: true },
    video,
    element("div", { class: "buttons" },
      shutter,
      element("button", { type: "button", onclick: stop }, "Stop")),
  );
  const wrapper = element("div", {}, panel, said);

  async function start() {
    stop();
    said.textContent = "";
    let found;
    try {
      found = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch {
      said.textContent = "There is no camera that this page may use.";
      return;
    }
    stop(); // whoever asked twice was answered twice
    stream = found;
    if (!wrapper.isConnected) {
      stop(); // another model was chosen while the browser asked
      return;
    }
    shutter.disabled = true;
    video.srcObject = stream;
    panel.hidden = false;
  }
  function stop() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    panel.hidden = true;
  }
  function shoot() {
    take(limited(video, side));
    stop();
  }
  const button = element("button", { type: "button", onclick: start }, "Camera");
  return { button, panel: wrapper, stop };
}
