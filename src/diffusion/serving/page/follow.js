/** Frames shown one after the other as they come, no faster than can be seen. */

const PACE = 60; // milliseconds a frame
const BEHIND = 20; // frames; of more, some are left out

/** `show(frame)` is called for each frame up to the last that `chase` knows; without motion, for that alone. */
export function follower(show) {
  let [shown, target, timer] = [-1, -1, 0];
  const next = () => {
    timer = 0;
    if (shown >= target) return;
    shown += Math.max(1, Math.floor((target - shown) / BEHIND));
    show(shown);
    timer = setTimeout(next, PACE);
  };
  return {
    /** There are frames up to `last`; `ended` if no more will come. */
    chase(last, ended) {
      target = last;
      if (!matchMedia("(prefers-reduced-motion: reduce)").matches) return timer || next();
      if (ended && shown < target) show((shown = target));
    },
    /** Begins anew, after `frame`. */
    reset(frame = -1) {
      clearTimeout(timer);
      [shown, target, timer] = [frame, frame, 0];
    },
    get shown() {
      return shown;
    },
  };
}
