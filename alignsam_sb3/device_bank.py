"""What frozen models say of images, gathered by row on the device where it is used."""

import os
from collections.abc import Callable, Sequence

import numpy as np
import torch as th
from numpy.typing import NDArray

from alignsam_sb3.arrays import on_device
from alignsam_sb3.features import FeatureBank
from alignsam_sb3.frame import Frame
from alignsam_sb3.names import nearest

PLACES = ("auto", "device", "host")
LANGUAGE = ("similarity_maps", "cosine_maps")
_SHARE = 0.5  # of the free memory, at most
Photo = NDArray[np.uint8]


class DeviceBank:
    """Rows of feature banks as tensors on one device, in half precision: features, pictures and maps of language.

    A bank that fits is held on the device, and a row is copied there when it is first asked for. One that does not fit stays
    in its files, and only the rows that are asked for are copied, each time.

    :param features: what the segmenter says of each image
    :param language: what a language prior says of each image, brought to the segmenter's frame here
    :param frame: of the segmenter
    :param grid: (h, w) cells of its embedding
    :param image_side: side of the pictures in pixels
    :param read: an image (H, W, 3) and its size by row
    :param place: ``"device"``, ``"host"``, or ``"auto"``: on the device if at most half of its free memory is needed
    """

    def __init__(
        self,
        features: FeatureBank,
        language: FeatureBank | None,
        frame: Frame,
        grid: tuple[int, int],
        image_side: int,
        read: Callable[[int], Photo],
        device: th.device,
        place: str = "auto",
    ) -> None:
        if place not in PLACES:
            raise ValueError(nearest("place of a bank", place, PLACES))
        self.features, self.language, self.frame, self.grid = features, language, frame, grid
        self.image_side, self.device, self._read_image = image_side, device, read
        self.shapes: dict[str, tuple[int, ...]] = {**features.shapes, "image": (3, image_side, image_side)}
        if language is not None:
            self.shapes |= {name: (language.shapes[name][0], *grid) for name in LANGUAGE}
        count = len(features)
        needed = count * sum(int(np.prod(shape)) * self._type(name).itemsize for name, shape in self.shapes.items())
        self.resident = place == "device" or (place == "auto" and needed <= _SHARE * free_memory(device))
        self._loaded = np.zeros(count, bool)
        self._tensors: dict[str, th.Tensor] = {}
        if self.resident:
            self._tensors = {
                name: th.empty((count, *shape), dtype=self._type(name), device=device) for name, shape in self.shapes.items()
            }

    @staticmethod
    def _type(name: str) -> th.dtype:
        return th.uint8 if name == "image" else th.float16

    def gather(self, rows: NDArray[np.int64], names: Sequence[str] | None = None, widen: bool = True) -> dict[str, th.Tensor]:
        """Arrays of some rows on the device, each (K, ...): ``image`` uint8, all others float32.

        :param names: which; by default all
        :param widen: make float32 of what is kept in half precision
        :raises UnreadableImageError: an image that was never asked for before cannot be read
        """
        wanted = list(self.shapes) if names is None else list(names)
        if not self.resident:
            found = {name: on_device(values, self.device) for name, values in self._read(rows, wanted).items()}
        else:
            self._load(rows)
            at = on_device(rows, self.device)
            found = {name: self._tensors[name].index_select(0, at) for name in wanted}
        return {name: _widened(values) for name, values in found.items()} if widen else found

    def _load(self, rows: NDArray[np.int64]) -> None:
        missing = np.unique(rows[~self._loaded[rows]])
        if not len(missing):
            return
        at = on_device(missing, self.device)
        for name, values in self._read(missing, list(self._tensors)).items():
            self._tensors[name][at] = on_device(values, self.device)
        self._loaded[missing] = True

    def _read(self, rows: NDArray[np.int64], names: Sequence[str]) -> dict[str, th.Tensor]:
        """Rows of some arrays on the host, as they are kept."""
        out: dict[str, th.Tensor] = {}
        kept = [name for name in names if name in self.features.shapes]
        if kept:
            found = self.features.rows(rows)
            out |= {name: th.from_numpy(found[name]) for name in kept}
        if "image" in names:
            pictures = [self.frame.picture(self._read_image(int(row)), self.image_side) for row in rows]
            out["image"] = th.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).copy())
        said = [name for name in names if name in LANGUAGE]
        if said and self.language is not None:
            maps = self.language.rows(rows)
            sizes = [self._read_image(int(row)).shape[:2] for row in rows]
            for name in said:
                squashed = maps[name].astype(np.float32)
                framed = [self.frame.from_squashed(m, (h, w), self.grid) for m, (h, w) in zip(squashed, sizes, strict=True)]
                out[name] = th.from_numpy(np.stack(framed)).half()
        return out


def _widened(values: th.Tensor) -> th.Tensor:
    return values if values.dtype == th.uint8 else values.float()


def free_memory(device: th.device) -> float:
    """Bytes that can be had on a device now."""
    if device.type == "cuda":
        return float(th.cuda.mem_get_info(device)[0])
    return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
