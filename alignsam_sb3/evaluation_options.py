"""What ``alignsam evaluate`` takes, read before anything heavy is imported."""

import argparse
import json
from pathlib import Path

from alignsam_sb3.arguments import positive_int, saved_policy
from alignsam_sb3.datasets import require
from alignsam_sb3.datasets.options import add_dataset_kwargs

DESCRIPTION = """Compare a saved policy with random clicks, one centre click, CLIP's points and the oracle, in one table.

alignsam evaluate --policy policy.zip --episodes 200 --seed 0 --out results

All players play the same episodes, drawn from the seed on the evaluation split. The agent sees observations only. CLIP points
are the peaks of the target's similarity map. The centre click and the oracle look at the truth: they show what the segmenter
could do. Rivals are fitted on the images that the policy was trained on."""
RIVALS = (
    "map alone",
    "map as mask prompt",
    "map's peaks",
    "map's errors",
    "nearest exemplar",
    "small head",
    "mean training mask",
    "GrabCut",
)
"""Of :data:`alignsam_sb3.evaluation.RIVALS`; to import these takes seconds."""


def read(argv: list[str] | None, prog: str) -> argparse.Namespace:
    """The options of an evaluation.

    :param prog: the command as it was typed, for help and errors
    :raises SystemExit: an option is unknown or wrong, or help was asked for
    :raises FileNotFoundError: the policy or the data set is not there
    """
    out = argparse.ArgumentParser(prog=prog, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--policy", type=saved_policy, required=True, help="a .zip that alignsam train saved")
    out.add_argument("--env", default="SamSeg-v0", help="the task of a policy that does not tell its own (of --trust)")
    out.add_argument("--episodes", type=positive_int, default=200)
    out.add_argument("--seed", type=int, default=0)
    out.add_argument("--out", type=Path, default=Path("results"))
    out.add_argument("--dataset", help="another data set than the policy's own, by spec string")
    out.add_argument("--segmenter", help="another checkpoint of the policy's segmenter, by spec string")
    out.add_argument("--clip", help="another language prior than the policy's own, by spec string")
    out.add_argument("--reward-network", help="score the masks with this one, and say how far from Dice that is; or none")
    out.add_argument("--prompts", type=json.loads, help="phrases for categories, as JSON")
    out.add_argument("--categories", nargs="+", help="names to keep")
    add_dataset_kwargs(out)
    out.add_argument(
        "--rivals",
        nargs="+",
        default=["all"],
        choices=[*RIVALS, "all", "none"],
        metavar="NAME",
        help=f"rows of what the same labelled images and segmenter give without an agent: {', '.join(RIVALS)}, all or none",
    )
    out.add_argument("--allow-seen", action="store_true", help="evaluate on images seen in training, and say how many")
    out.add_argument("--trust", action="store_true", help="unpickle the policy: only for a file whose origin you trust")
    args = out.parse_args(argv)
    if args.dataset is not None:
        require(args.dataset)
    return args
