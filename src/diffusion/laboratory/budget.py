"""How long is trained: up to a planned step, or to one that minutes make known."""

import math
from typing import Any

from diffusion.errors import UserError
from diffusion.experiment.recipe import Plan


class Budget:
    """The end of a training, in steps. The budget of its plan that is used up first decides.

    A learning rate that falls over the last part of a training must know the end before it falls. So minutes promise a
    step when so much of them has passed, once; after that they decide nothing more, however fast the steps become.
    """

    def __init__(self, plan: Plan | None = None, steps_per_epoch: int = 1, decay: float = 0.0):
        plan = plan or Plan()
        self.minutes, self.decay = plan.minutes, decay
        self.settled = False  # whether minutes have promised an end
        self.earlier = 0.0  # minutes, of the run that is resumed
        end = min(plan.steps or math.inf, (plan.epochs or math.inf) * steps_per_epoch)
        self.end = max(1, round(end)) if end < math.inf else None  # by steps and epochs
        self._first: tuple[float, int] | None = None  # seconds and steps after this session's first step, a slow one

    def resume(self, state: dict[str, Any], planned: int | None, seconds: float) -> int | None:
        """The end of a resumed training, None if minutes are yet to decide; it was `planned`, and trained `seconds`.

        A longer plan extends it. UserError for a shorter one: the learning rate falls towards the planned end.
        """
        if planned and self.end and self.end < planned:
            was = f"this run was planned to end at step {planned:,}, not {self.end:,}, and its learning rate"
            raise UserError(f"{was} falls towards that: ask for no less, or start anew without --resume")
        self.earlier = state.get("minutes") or 0.0
        longer = planned is not None and self._is_longer(planned, seconds)
        self.settled = bool(self.minutes) and state.get("settled", False) and not longer
        return self.end if longer else planned or self.end

    def state(self) -> dict[str, Any]:
        """For `resume`."""
        return {"minutes": max(self.minutes, self.earlier) if self.minutes else None, "settled": self.settled}

    def promised(self, step: int, seconds: float) -> int:
        """The step at which the minutes will be over, if it is time to know after so many seconds; else 0."""
        self._first = self._first or (seconds, step)
        allowed, (before, first) = 60 * (self.minutes or math.inf), self._first
        if self.settled:
            return 0
        if seconds >= allowed:
            return step
        if seconds < allowed * (1 - self.decay) or step == first:
            return 0
        return step + round((allowed - seconds) * (step - first) / (seconds - before))

    def _is_longer(self, planned: int, seconds: float) -> bool:
        if self.minutes and self.earlier:
            return self.minutes > self.earlier
        if self.minutes:  # of the run so far only its steps are known
            return seconds < 60 * self.minutes * (1 - self.decay)
        return self.end is not None and self.end > planned
