/** Standard normal numbers that are a function of (seed, sample, draw): the same whatever else is drawn. */

/** A 32-bit integer hash: two rounds of multiply and xor-shift, with the constants of hash-prospector. */
function mix(x) {
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
  x = Math.imul(x ^ (x >>> 15), 0xd35a2d97);
  return (x ^ (x >>> 15)) >>> 0;
}

/** A number in (0, 1). */
export function uniform(...counters) {
  return (counters.reduce((state, counter) => mix((state ^ counter) + 0x9e3779b9), 0) + 0.5) / 2 ** 32;
}

/** Box and Muller (1958). */
export function normal(seed, sample, draw) {
  const radius = Math.sqrt(-2 * Math.log(uniform(seed, sample, draw, 0)));
  return radius * Math.cos(2 * Math.PI * uniform(seed, sample, draw, 1));
}
