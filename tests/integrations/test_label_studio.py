"""Label Studio's own package takes a run's tasks as predictions, and reads back the same masks once they are accepted."""

import json

import numpy as np
import pytest
from fakes import FakePredictor
from PIL import Image

from alignsam_sb3.annotate import annotate_folder

brush = pytest.importorskip("label_studio_sdk.converter.brush")
CONFIG = """<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">
<Label value="light"/><Label value="dark"/></BrushLabels></View>"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "photos" / "a folder").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(6):
        photo = rng.integers(0, 255, (30 + k, 41, 3)).astype(np.uint8)
        photo[5:20, 10 : 20 + k] = 250
        Image.fromarray(photo).save(tmp_path / "photos" / ("a folder" if k % 2 else "") / f"{k}.png")
    annotate_folder(FakePredictor(), tmp_path / "photos", tmp_path / "run", formats=["label_studio", "png"], progress=False)
    return tmp_path / "run"


def test_every_prediction_fits_the_documented_configuration(run):
    interface = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface(CONFIG)
    for task in json.loads((run / "label_studio.json").read_text()):
        (prediction,) = task["predictions"]
        assert prediction["result"] and interface._validate_object(prediction, True) == []
        broken = {**prediction, "result": [{**prediction["result"][0], "from_name": "brush"}]}
        assert interface._validate_object(broken, True)


def test_what_it_exports_of_accepted_predictions_are_the_masks(run, tmp_path):
    from label_studio_sdk.converter import Converter

    tasks = json.loads((run / "label_studio.json").read_text())
    for number, task in enumerate(tasks):
        (prediction,) = task.pop("predictions")
        task |= {"id": number, "annotations": [{"id": number, "result": prediction["result"], "completed_by": 1}]}
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "tasks.json").write_text(json.dumps(tasks))
    (tmp_path / "png").mkdir()
    for item in Converter(CONFIG, project_dir=None).iter_from_dir(str(tmp_path / "exported")):
        brush.convert_task(item, str(tmp_path / "png"), out_format="png")
    names = [task["data"]["image"].partition("?d=")[2].replace("%20", " ") for task in tasks]
    seen = 0
    for path in (tmp_path / "png").glob("*.png"):
        number, category = int(path.name.split("-")[1]), path.stem.split("-")[-2]
        ours = np.asarray(Image.open(run / "masks" / category / f"{names[number]}.png"))
        seen += bool(ours.any()) and bool(((np.asarray(Image.open(path)) > 0) == (ours > 0)).all())
    assert seen == 12
