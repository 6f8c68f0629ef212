"""AlignSAM's ablations on five toy tasks, several seeds each, in the layout of the paper's Tables 2, 4 and 5.

python scripts/studies/ablation.py --full --out runs/ablation            # hours; a killed run goes on where it stopped
python scripts/studies/ablation.py --quick --out runs/ablation-quick     # plumbing
python scripts/studies/ablation.py --full --out runs/ablation --report   # tables and curves of what is there

Seeds are worked through in turn, so that after an interruption all tasks have about as many.
"""

import argparse
import multiprocessing
import os
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from ablation_tables import report
from tqdm import tqdm

from alignsam_sb3.ablation import SIZES, TASKS, run


def end_with(parent: int) -> None:
    """End this worker, whatever it is doing, as soon as the process that started it is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def work(task: str, seed: int, size: str, out: Path) -> str:
    """One seed of one task, in a process of its own; an error's traceback goes to a file beside the results."""
    log = out / f"{task}-{seed}.error.txt"
    log.unlink(missing_ok=True)
    try:
        run(task, seed, SIZES[size], out)
    except Exception as error:
        log.write_text(traceback.format_exc())
        return f"{task}, seed {seed}: {type(error).__name__}: {error} (all of it in {log})"
    return ""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help=f"{SIZES['quick']} (the default)")
    length.add_argument("--full", action="store_true", help=f"{SIZES['full']}")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; each takes one thread")
    parser.add_argument("--report", action="store_true", help="train nothing more")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    size, failed = "full" if args.full else "quick", 0
    os.environ["OMP_NUM_THREADS"] = "1"
    jobs = [] if args.report else [(task, seed) for seed in args.seeds for task in args.tasks]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.workers, mp_context=context, initializer=end_with, initargs=(os.getpid(),)) as pool:
        try:
            futures = [pool.submit(work, task, seed, size, args.out) for task, seed in jobs]
            for future in tqdm(as_completed(futures), total=len(jobs), desc="seeds of tasks", disable=not jobs):
                if future.result():
                    failed += 1
                    tqdm.write(future.result())
        except KeyboardInterrupt:
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise SystemExit(f"interrupted: finished variants are in {args.out}; the same command goes on") from None
    if not jobs or failed < len(jobs):
        print(report(args.out))
        print(f"Written to {args.out}: report.md, curves.png, and each seed's numbers")
    if failed:
        raise SystemExit(f"{failed} of {len(jobs)} failed, as said above; the same command tries them again")


if __name__ == "__main__":
    main()
