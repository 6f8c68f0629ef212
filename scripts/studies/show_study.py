"""What an Optuna study of the zoo found: its best values as they go into ``hyperparams/``, and a picture of all trials.

python scripts/train.py -optimize --study-name explicit --storage runs/study/explicit.log --seed 1  # and again, at the
python scripts/train.py -optimize --study-name explicit --storage runs/study/explicit.log --seed 2  # same time
python scripts/studies/show_study.py runs/study/explicit.log --study-name explicit --out study.png
"""

import argparse
from pathlib import Path

import optuna
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from alignsam_sb3.zoo import convert_hyperparams

COLOURS = {TrialState.COMPLETE: "tab:blue", TrialState.PRUNED: "tab:orange"}


def plot(study: optuna.Study, path: Path) -> None:
    """Each hyperparameter a panel: its value against the return (a pruned trial's last); the best trial ringed."""
    from matplotlib.figure import Figure

    names = sorted(study.best_trial.params)
    figure = Figure(figsize=(2.2 * len(names), 2.8), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for state, colour in COLOURS.items():
            trials = [t for t in study.get_trials(deepcopy=False, states=(state,)) if t.value is not None]
            values = [[t.params[name] for t in trials], [t.value for t in trials]]
            axes.scatter(*values, s=18, color=colour, label=state.name.lower())
        best = study.best_trial
        axes.scatter([best.params[name]], [best.value], s=90, facecolors="none", edgecolors="black", label="best")
        logarithmic = getattr(best.distributions[name], "log", False)
        axes.set(xlabel=name, xscale="log" if logarithmic else "linear")
    panels[0].set_ylabel("mean return, evaluation scenes")
    panels[-1].legend(fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("storage", type=Path, help="the journal that --storage named")
    parser.add_argument("--study-name", required=True)
    parser.add_argument("--out", type=Path, default=Path("study.png"))
    args = parser.parse_args()
    if not args.storage.is_file():
        raise SystemExit(f"there is no journal {args.storage}: give the file that -optimize was given as --storage")
    storage = JournalStorage(JournalFileBackend(str(args.storage)))
    known = optuna.get_all_study_names(storage)
    if args.study_name not in known:
        raise SystemExit(f"{args.storage} holds no study {args.study_name!r}; it holds {', '.join(known) or 'none'}")
    study = optuna.load_study(study_name=args.study_name, storage=storage)
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    counts = ", ".join(f"{states.count(state)} {state.name.lower()}" for state in TrialState if state in states)
    print(f"{len(states)} trials: {counts or 'none'}")
    if TrialState.COMPLETE not in states:
        raise SystemExit("no trial is complete yet")
    best = study.best_trial
    print(f"Best: trial {best.number}, mean return {best.value:.4f}\n")
    print(yaml.safe_dump(convert_hyperparams(best.params), sort_keys=False))
    plot(study, args.out)
    print(f"All trials: {args.out}")


if __name__ == "__main__":
    main()
