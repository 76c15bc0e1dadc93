/** Which of the served models draws digits. */

/** One that was distilled to a few network calls, or one that was not; if there is none, the other. */
export function drawing(all, few) {
  const digits = all.filter(({ kind, labels, dataset, classifier }) => {
    return kind === "gaussian" && labels.length && dataset === "MNIST" && classifier;
  });
  return digits.find(({ defaults }) => (defaults.sampler === "consistency") === few) ?? digits[0];
}
