"""An auto-annotation function for CVAT.

    cvat-cli auto-annotate TASK --function-module alignsam_sb3.integrations.cvat -p policy=str:policy.zip

CVAT matches labels by name: a task needs labels of type mask (or any) that are called like the policy's categories.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignsam_sb3.annotate.predicting import Predicts
from alignsam_sb3.encodings import outlines, to_cvat_points
from alignsam_sb3.names import nearest

if TYPE_CHECKING:
    from PIL import Image


class CvatFunction:
    """What CVAT calls for each image.

    :param predict: finds the masks
    :param categories: what to look for; by default all that the policy knows
    :raises ImportError: CVAT's package is missing
    :raises ValueError: the policy does not know a category
    """

    def __init__(self, predict: Predicts, categories: Sequence[str] = ()) -> None:
        try:
            import cvat_sdk.auto_annotation as cvat
        except ImportError as error:
            raise ImportError("CVAT's function needs more packages: pip install 'alignsam_sb3[cvat]'") from error
        for name in categories:
            if name not in predict.categories:
                raise ValueError(nearest("category of this policy", name, predict.categories))
        self._cvat, self._predict = cvat, predict
        self._names = tuple(categories) or tuple(predict.categories)

    @property
    def spec(self) -> Any:  # noqa: ANN401 (CVAT's own type, in a package that may be missing)
        """The labels that this function gives."""
        labels = [self._cvat.label_spec(name, k, type="mask") for k, name in enumerate(self._names)]
        return self._cvat.DetectionFunctionSpec(labels=labels)

    def detect(self, context: Any, image: "Image.Image") -> list[Any]:  # noqa: ANN401 (CVAT's own types)
        """The masks of an image whose predicted Dice reaches CVAT's threshold, as masks or, where it wants them, polygons."""
        photo = np.asarray(image.convert("RGB"))
        least = context.conf_threshold or 0.0
        shapes: list[Any] = []
        for k, found in enumerate(self._predict.batch([photo], list(self._names))[0]):
            if not found.found or found.score < least:
                continue
            if context.conv_mask_to_poly:
                places = [(outline + 0.5).ravel().tolist() for outline in outlines(found.mask)]
                shapes += [self._cvat.polygon(k, points) for points in places]
            else:
                shapes.append(self._cvat.mask(k, [float(n) for n in to_cvat_points(found.mask)]))
        return shapes


def create(policy: str, categories: str = "", device: str = "auto") -> CvatFunction:
    """What ``cvat-cli`` calls with its ``-p`` options.

    :param policy: a policy's zip, or ``user/repo`` on the Hub
    :param categories: names separated by commas; by default all that the policy knows
    :param device: where the models run
    """
    from alignsam_sb3.predictor import Predictor

    load = Predictor.load if policy.endswith(".zip") else Predictor.from_hub
    predict: Predicts = load(policy, device=device)
    return CvatFunction(predict, [name.strip() for name in categories.split(",") if name.strip()])
