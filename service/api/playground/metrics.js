// Prometheus' text format, and what can be told from counters and buckets.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** Return the samples of an exposition: name, labels and value of each. */
export function parseMetrics(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries([...(found[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value]));
    samples.push({ name: found[1], labels, value: Number(found[3].replace("Inf", "Infinity")) });
  }
  return samples;
}

/** Return sums of the samples of one name by the value of a label. */
export function sumBy(samples, name, label) {
  const sums = new Map();
  for (const sample of samples) {
    if (sample.name !== name) continue;
    const key = sample.labels[label] ?? "";
    sums.set(key, (sums.get(key) ?? 0) + sample.value);
  }
  return sums;
}

export const sum = (samples, name) => [...sumBy(samples, name, "").values()].reduce((a, b) => a + b, 0);

/** Return [upper edge, how many up to it] of a histogram, ascending, less those of `before`. */
export function buckets(samples, name, before = []) {
  const old = sumBy(before, `${name}_bucket`, "le");
  return [...sumBy(samples, `${name}_bucket`, "le")]
    .map(([edge, count]) => [Number(edge.replace("+Inf", "Infinity")), count - (old.get(edge) ?? 0)])
    .sort(([one], [other]) => one - other);
}

/** Return a quantile, linear within its bucket; null if nothing was counted. */
export function quantile(cumulative, share) {
  const total = cumulative.at(-1)?.[1] ?? 0;
  if (!total) return null;
  const wanted = share * total;
  let [lower, below] = [0, 0];
  for (const [edge, count] of cumulative) {
    if (count >= wanted) {
      if (edge === Infinity) return lower;
      return lower + ((edge - lower) * (wanted - below)) / Math.max(1e-9, count - below);
    }
    [lower, below] = [edge, count];
  }
  return lower;
}
