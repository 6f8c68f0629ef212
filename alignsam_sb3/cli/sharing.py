"""What hands a policy on: ``export``, ``push`` and ``pull``."""

from pathlib import Path

from alignsam_sb3.arguments import saved_policy
from alignsam_sb3.cli import options
from alignsam_sb3.cli.options import POLICY, add_policy, parser_of


def export_command(argv: list[str]) -> None:
    """Write policy and segmenter as ONNX."""
    parser = parser_of("export", export_command)
    add_policy(parser)
    parser.add_argument("--onnx", type=Path, required=True, metavar="DIR")
    parser.add_argument("--measure", type=int, metavar="N", help="say how long N photos take there and in torch")
    args = parser.parse_args(argv)
    from alignsam_sb3.export import export_onnx, measure_latency

    predict = options.load(args)
    for path in export_onnx(predict, args.onnx):
        print(path)
    if args.measure:
        print(measure_latency(predict, args.onnx, args.measure))


def push_command(argv: list[str]) -> None:
    """Upload a policy to the Hugging Face Hub, nothing of it pickled."""
    parser = parser_of("push", push_command)
    parser.add_argument("policy", type=saved_policy, help=POLICY)
    parser.add_argument("repo", help="user/name")
    parser.add_argument("--evaluation", type=Path, metavar="DIR", help="what alignsam evaluate wrote, for the model card")
    parser.add_argument("--film", type=Path, metavar="GIF", help="for the model card")
    parser.add_argument("--private", action="store_true", help="if the repository is made now: for nobody else")
    args = parser.parse_args(argv)
    from alignsam_sb3 import hub

    print(hub.push(args.policy, args.repo, args.evaluation, args.film, args.private))


def pull_command(argv: list[str]) -> None:
    """Download a policy from the Hugging Face Hub."""
    parser = parser_of("pull", pull_command)
    parser.add_argument("repo", help="user/name")
    parser.add_argument("--out", type=Path, help="a zip; by default in the cache")
    parser.add_argument("--revision", help="a branch, tag or commit of the repository")
    args = parser.parse_args(argv)
    from alignsam_sb3 import hub

    print(hub.pull(args.repo, args.out, args.revision))
