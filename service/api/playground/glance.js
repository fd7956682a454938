// On a narrow page the verdict is often out of sight: then its first words stand at the lower edge.

import { byId } from "./dom.js";

const KINDS = ["is-answered", "is-unknown", "is-failure"];

/** Repeat what the verdict says for as long as it is not seen itself; a touch goes to it. */
export function createGlance(place) {
  const verdict = byId("verdict");
  let isSeen = true;
  const show = () => {
    const says = verdict.querySelector(".says");
    place.hidden = isSeen || says === null;
    place.textContent = says?.textContent ?? "";
    for (const kind of KINDS) place.classList.toggle(kind, verdict.classList.contains(kind));
  };
  new MutationObserver(show).observe(verdict, { childList: true });
  new IntersectionObserver(([{ isIntersecting }]) => {
    isSeen = isIntersecting;
    show();
  }).observe(verdict);
  place.addEventListener("click", () => verdict.scrollIntoView({ block: "center" }));
}
