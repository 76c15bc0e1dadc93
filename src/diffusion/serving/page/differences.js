/** What columns of pictures may differ in. Each has a name, a sentence, and its columns { caption, calls, request }. */

const COLD = 28; // steps, as many as there are lines
const TRAINED = 100; // steps of the models that were kept during their training
const SOLVERS = { ddim: "DDIM", ddpm: "DDPM", heun: "Heun", dpm: "DPM" };
const LINES = { row: "rows averaged", col: "columns averaged" };

const guided = (all) => all.filter(({ kind, labels }) => kind === "gaussian" && labels.length).slice(0, 1);

/** The models that were kept at several epochs, by family, in the order of their epochs. */
export function families(all) {
  const kept = [...Map.groupBy(all, ({ family }) => family)].filter(([, models]) => models.length > 1);
  return new Map(kept.map(([family, models]) => [family, models.sort((a, b) => a.epoch - b.epoch)]));
}

/** `columns(values, all)` is empty if the server has not the models for it. */
export const DIFFERENCES = {
  guidance: {
    name: "Guidance",
    about:
      "Guidance moves each belief away from what the network says without a label, past what it says with it. " +
      "0 ignores the label, 1 follows it, more exaggerates it: clearer digits, with less variety.",
    columns: ({ label }, all) =>
      guided(all).flatMap(({ id: model, defaults: { steps, sampler } }) =>
        [0, 1, 2, 3, 4].map((scale) => ({
          caption: `scale ${scale}`,
          calls: steps,
          request: { model, steps, sampler, label: Number(label), guidance_scale: scale },
        })),
      ),
  },
  samplers: {
    name: "Samplers",
    about:
      "Each may ask the network equally often. DDIM goes straight for each belief, DDPM adds fresh noise on " +
      "its way, Heun asks twice a step, and DPM extrapolates from its last two answers. Give them few calls, " +
      "then many.",
    columns: ({ label, calls: half }, all) =>
      guided(all).flatMap(({ id: model, samplers }) =>
        Object.keys(SOLVERS)
          .filter((sampler) => samplers.includes(sampler))
          .map((sampler) => ({
            caption: SOLVERS[sampler],
            calls: 2 * half - 1,
            request: { model, sampler, steps: sampler === "heun" ? half : 2 * half - 1, label: Number(label) },
          })),
      ),
  },
  cold: {
    name: "Hot and cold",
    about:
      "Nothing in the loop needs noise. Cold diffusion averages the lines of a picture, one after the other, " +
      "and a network learns to undo that: the same loop, from stripes instead of static.",
    columns(_, all) {
      const cold = all.filter(({ kind }) => kind === "averaging");
      const best = cold.filter(({ family }) => family.startsWith("cold_unet"));
      const chosen = [...guided(all), ...(best.length ? best : cold.slice(0, 2))];
      return chosen.map(({ id: model, labels, axis }) => ({
        caption: LINES[axis] ?? "noise",
        calls: COLD,
        request: { model, steps: COLD, ...(labels.length ? { label: "none" } : {}) },
      }));
    },
  },
  training: {
    name: "Training",
    about:
      "One model after more and more epochs of training, from the same noise each time. Untrained, it turns " +
      "noise into other noise; strokes come first, digits later.",
    columns({ family }, all) {
      const kept = families(all);
      const models = kept.get(family) ?? [...kept.values()][0] ?? [];
      return models.map(({ id: model, kind, epoch, defaults }) => {
        const steps = kind === "averaging" ? defaults.steps : TRAINED;
        return { caption: `epoch ${epoch}`, calls: steps, request: { model, steps } };
      });
    },
  },
};
