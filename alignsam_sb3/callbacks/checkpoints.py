"""Checkpoints that hold what was learned from all steps that they count."""

from stable_baselines3.common.callbacks import CheckpointCallback


class CheckpointAfterUpdate(CheckpointCallback):
    """SB3's CheckpointCallback, which saves after the update that belongs to the rollout in which a checkpoint fell due.

    The stock one saves in the middle of a rollout: a training that goes on from there has counted steps that it never learned
    from.
    """

    _due = False

    def _on_step(self) -> bool:
        self._due |= self.n_calls % self.save_freq == 0
        return True

    def _on_rollout_start(self) -> None:
        self._save_if_due()

    def _on_training_end(self) -> None:
        self._save_if_due()

    def _save_if_due(self) -> None:
        if self._due:
            self._due = False
            calls, self.n_calls = self.n_calls, self.save_freq  # the stock callback saves at multiples of this
            super()._on_step()
            self.n_calls = calls
