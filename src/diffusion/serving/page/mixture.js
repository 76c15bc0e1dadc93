/** Diffusion in one dimension, where everything is known: data from a Gaussian mixture, noised along straight lines. */

/** How much of the data and how much noise is in x_t = alpha x_0 + sigma eps (Liu et al., 2023). */
export const schedule = (t) => ({ alpha: 1 - t, sigma: t });

const gaussian = (x, mean, deviation) =>
  Math.exp(-(((x - mean) / deviation) ** 2) / 2) / (deviation * Math.sqrt(2 * Math.PI));

/** The density of x_t, of data that is a mixture of parts { weight, mean, deviation }. */
export function density(parts, x, t) {
  const { alpha, sigma } = schedule(t);
  const at = ({ weight, mean, deviation }) =>
    weight * gaussian(x, alpha * mean, Math.hypot(alpha * deviation, sigma));
  return parts.reduce((sum, part) => sum + at(part), 0);
}

/** The exact denoiser, the mean of x_0 given x_t: each part's own answer, weighted by how likely x_t came from it. */
export function denoise(parts, x, t) {
  const { alpha, sigma } = schedule(t);
  const logs = parts.map(({ weight, mean, deviation }) => {
    const variance = (alpha * deviation) ** 2 + sigma ** 2;
    return Math.log(weight) - (x - alpha * mean) ** 2 / (2 * variance) - Math.log(variance) / 2;
  });
  const most = Math.max(...logs); // far from all parts, each likelihood alone would be 0
  let total = 0;
  let sum = 0;
  parts.forEach(({ mean, deviation }, i) => {
    const share = Math.exp(logs[i] - most);
    const gain = (alpha * deviation ** 2) / ((alpha * deviation) ** 2 + sigma ** 2);
    total += share;
    sum += share * (mean + gain * (x - alpha * mean));
  });
  return sum / total;
}

/** From t to s < t, given an estimate of x_0. Song et al. (2021), equation 12; eta 0 is DDIM, 1 is DDPM. */
export function step(x, x_0, t, s, eta, noise) {
  const [from, to] = [schedule(t), schedule(s)];
  const beta = from.sigma ** 2 - ((from.alpha / to.alpha) * to.sigma) ** 2; // variance of x_t given x_s
  const fresh = (eta ** 2 * beta * to.sigma ** 2) / from.sigma ** 2;
  const eps = (x - from.alpha * x_0) / from.sigma;
  return to.alpha * x_0 + Math.sqrt(Math.max(to.sigma ** 2 - fresh, 0)) * eps + Math.sqrt(fresh) * noise;
}

/** Every state of one sample, from x at t = 1 down to t = 0 in even steps; draw(k) is the noise of step k. */
export function path(parts, x, steps, eta, draw) {
  const states = [x];
  for (let k = 0; k < steps; k++) {
    const [t, s] = [1 - k / steps, 1 - (k + 1) / steps];
    x = step(x, denoise(parts, x, t), t, s, eta, eta ? draw(k) : 0);
    states.push(x);
  }
  return states;
}

/** Where a path is at time t: on the line between two of its states. */
export function along(states, t) {
  const place = (1 - t) * (states.length - 1);
  const k = Math.min(Math.floor(place), states.length - 2);
  return states[k] + (place - k) * (states[k + 1] - states[k]);
}

/** `count` numbers spread like the data, without any chance: those below which lie equal shares of it. */
export function spread(parts, count, low = -8, high = 8, cells = 16000) {
  const width = (high - low) / cells;
  const numbers = [];
  let below = 0;
  for (let i = 0; i < cells && numbers.length < count; i++) {
    const x = low + (i + 0.5) * width;
    below += density(parts, x, 0) * width;
    while (numbers.length < count && below >= (numbers.length + 0.5) / count) numbers.push(x);
  }
  return numbers;
}

/** Wasserstein-1 distance between samples and the data: how far each has to be moved, in the mean. */
export function distance(parts, samples) {
  const [sorted, target] = [[...samples].sort((a, b) => a - b), spread(parts, samples.length)];
  return sorted.reduce((sum, x, i) => sum + Math.abs(x - target[i]), 0) / sorted.length;
}
