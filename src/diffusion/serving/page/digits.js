/** Which of the served models draws digits. */

/**
 * One that was distilled to a few network calls, or one that was not; if there is none, the other.
 * One that is not guided comes first: it asks its network once a call.
 */
export function drawing(all, few) {
  const digits = all.filter(({ kind, labels, dataset, classifier }) => {
    return kind === "gaussian" && labels.length && dataset === "MNIST" && classifier;
  });
  const fits = digits.filter(({ defaults }) => (defaults.sampler === "consistency") === few);
  return fits.find(({ defaults }) => defaults.guidance_scale === 1) ?? fits[0] ?? digits[0];
}
