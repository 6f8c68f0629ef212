"""Commands in processes of their own, as a user runs them, without the seconds that each of them takes to import.

They are forked from a server that has imported the heavy modules and done nothing else.
"""

import multiprocessing
import os
import runpy
import sys
import tempfile
from pathlib import Path

import torch as th

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["alignsam_sb3.zoo", "alignsam_sb3.evaluation", "alignsam_sb3.predictor"])


def run_alone(*words, cwd, env):
    """``python WORDS...`` in another process.

    :param words: a script, or ``-m`` and a module, with arguments
    :return: exit status, stdout and stderr
    """
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, name) for name in ("stdout", "stderr")]
        child = _SERVER.Process(target=_as_python, args=([str(word) for word in words], str(cwd), env, said))
        child.start()
        child.join()
        return child.exitcode, *(path.read_text() for path in said)


def _as_python(words, cwd, env, said):
    for stream, path in zip((sys.stdout, sys.stderr), said, strict=True):
        with path.open("w") as opened:
            os.dup2(opened.fileno(), stream.fileno())
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    th.set_num_threads(int(env["OMP_NUM_THREADS"]))
    sys.orig_argv = [sys.executable, *words]
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[:0] = words, [str(Path(words[0]).resolve().parent)]
        runpy.run_path(words[0], run_name="__main__")
