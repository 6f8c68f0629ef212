"""Everything that SB3 logs, to MLflow as well."""

from typing import Any

import numpy as np
from gymnasium.error import DependencyNotInstalled
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Image, KVWriter


class MlflowWriter(KVWriter):
    """An SB3 output format that sends scalars and pictures to the active MLflow run."""

    def __init__(self, mlflow: Any) -> None:  # noqa: ANN401 (the module)
        self._mlflow = mlflow

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        numbers = {
            key: float(value)
            for key, value in key_values.items()
            if isinstance(value, int | float | np.number) and "mlflow" not in (key_excluded.get(key) or ())
        }
        self._mlflow.log_metrics(numbers, step=step)
        for key, value in key_values.items():
            if isinstance(value, Image) and "mlflow" not in (key_excluded.get(key) or ()):
                self._mlflow.log_image(np.asarray(value.image), key=key.replace("/", "_"), step=step)

    def close(self) -> None:
        """The run outlives the writer; :class:`MlflowCallback` ends it."""


class MlflowCallback(BaseCallback):
    """Opens an MLflow run for the training and logs hyperparameters, scalars and pictures.

    :param tracking_uri: where to; by default as ``MLFLOW_TRACKING_URI`` says
    :param experiment: name of the MLflow experiment
    :raises DependencyNotInstalled: MLflow is missing
    """

    def __init__(self, tracking_uri: str | None = None, experiment: str = "alignsam_sb3") -> None:
        super().__init__()
        try:
            import mlflow
        except ImportError as error:
            raise DependencyNotInstalled('MLflow is not installed: run pip install "alignsam_sb3[mlflow]"') from error
        self._mlflow: Any = mlflow
        self.tracking_uri, self.experiment = tracking_uri, experiment

    def _on_training_start(self) -> None:
        if self.tracking_uri:
            self._mlflow.set_tracking_uri(self.tracking_uri)
        self._mlflow.set_experiment(self.experiment)
        self._mlflow.start_run()
        plain = {k: v for k, v in vars(self.model).items() if isinstance(v, int | float | str)}
        self._mlflow.log_params({"algorithm": type(self.model).__name__, **plain})
        self.logger.output_formats.append(MlflowWriter(self._mlflow))

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._mlflow.end_run()
