"""The page in the browser: a queue to review, or one photo to play with. Gradio's, and no page of our own."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from alignsam_sb3.annotate.play import Play
from alignsam_sb3.annotate.predicting import Picture
from alignsam_sb3.annotate.review import Review
from alignsam_sb3.annotate.window import Window
from alignsam_sb3.datasets.image_files import forget_other_formats

try:
    import gradio as gr
except ImportError as error:
    raise ImportError("the page needs more packages: pip install 'alignsam_sb3[app]'") from error

Shown = TypeVar("Shown")
SECONDS = 0.6
"""Between two pictures of what the agent did."""
KEYS = {"a": "accept", "r": "reject", "n": "not-here", " ": "later", "u": "undo", "w": "watch"}
POSITIVE, NEGATIVE = "add to the mask (+)", "take away (-, or hold Shift)"
HEAD = """<script>
const alignsamKeys = KEYS;
window.alignsamShift = false;
document.addEventListener("click", (event) => { window.alignsamShift = event.shiftKey; }, true);
document.addEventListener("keydown", (event) => {
  const field = event.target.tagName === "TEXTAREA" || event.target.type === "text";
  if (field || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const name = alignsamKeys[event.key.toLowerCase()];
  const button = name && document.getElementById("alignsam-" + name);
  if (button) { event.preventDefault(); document.activeElement.blur(); button.click(); }
}, true);
</script>""".replace("KEYS", json.dumps(KEYS))
SHIFT = f"(choice) => [window.alignsamShift ? {NEGATIVE!r} : choice]"
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
DONE = "**Nothing is left to review.** The files of the run are written when the server stops (Ctrl-C)."


def _said(window: Window | None, review: Review) -> str:
    """The line above the photo."""
    if window is None:
        return f"{DONE} {review.progress()}."
    a = window.annotation
    low = "" if a.low != a.low else f", at least {a.low:.2f}"
    what = f"**{a.category}**" if a.present else f"**no {a.category}**, the policy says"
    edited = " (corrected: A keeps it)" if window.edited else ""
    return f"{what} in `{a.image_id}`: predicted Dice {a.score:.2f}{low}{edited}. {review.progress()}."


def review_page(review: Review) -> gr.Blocks:
    """The page of a queue."""

    def shown(window: Window | None) -> tuple[Picture | None, str]:
        return (None if window is None else window.picture()), _said(window, review)

    def after(act: Callable[[str], Window | None]) -> Callable[[Any], tuple[Picture | None, str]]:
        def handler(request: gr.Request) -> tuple[Picture | None, str]:
            try:
                return shown(act(request.session_hash))
            except OSError as error:
                raise gr.Error(f"not kept: {error}. Make room on the disk, then decide again") from error

        return handler

    def click(choice: str, event: gr.SelectData, request: gr.Request) -> tuple[Picture | None, str]:
        x, y = event.index
        picture = review.click(request.session_hash, x, y, int(choice != NEGATIVE))
        return picture, _said(review.window(request.session_hash), review)

    def watch(request: gr.Request) -> Iterator[Picture]:
        yield from _slowly(review.watch(request.session_hash))

    def leave(request: gr.Request) -> None:
        review.close(request.session_hash)

    with gr.Blocks(title="alignsam review", analytics_enabled=False) as page:
        line = gr.Markdown(elem_id="alignsam-line")
        row = gr.Row()
        choice = gr.Radio([POSITIVE, NEGATIVE], value=POSITIVE, show_label=False, container=False, elem_id="alignsam-choice")
        photo = gr.Image(interactive=False, show_label=False, format="jpeg", elem_id="alignsam-photo", buttons=[])
        acts = {
            "accept": ("Accept (A)", review.accept),
            "reject": ("Reject (R)", review.reject),
            "not-here": ("Not in the photo (N)", review.not_here),
            "later": ("Later (Space)", review.later),
            "undo": ("Undo (U)", review.undo),
        }
        with row:
            for name, (label, act) in acts.items():
                button = gr.Button(label, elem_id=f"alignsam-{name}", min_width=80)
                button.click(after(act), None, [photo, line], **QUIET)
            watching = gr.Button("Watch the agent (W)", elem_id="alignsam-watch", min_width=80)
        watching.click(watch, None, photo, **QUIET)
        photo.select(click, choice, [photo, line], js=SHIFT, **QUIET)
        page.load(after(review.window), None, [photo, line], **QUIET)
        page.unload(leave)
    return page


def play_page(play: Play, categories: Sequence[str]) -> gr.Blocks:
    """The page of one photo: upload it, name a target, watch, click.

    :param categories: what can be named
    """

    def segment(photo: Picture | None, category: str, request: gr.Request) -> Iterator[tuple[Picture, str]]:
        try:
            yield from _slowly(play.segment(request.session_hash, photo, category))
        except ValueError as error:
            raise gr.Error(str(error)) from error

    def click(choice: str, event: gr.SelectData, request: gr.Request) -> tuple[Picture, str]:
        return play.click(request.session_hash, event.index[0], event.index[1], int(choice != NEGATIVE))

    def undo(request: gr.Request) -> tuple[Picture, str]:
        try:
            return play.undo(request.session_hash)
        except ValueError as error:  # nothing was segmented yet
            raise gr.Error(str(error)) from error

    def leave(request: gr.Request) -> None:
        play.close(request.session_hash)

    with gr.Blocks(title="alignsam play", analytics_enabled=False) as page:
        with gr.Row():
            category = gr.Dropdown(list(categories), value=categories[0], label="target")
            go = gr.Button("Segment", elem_id="alignsam-segment", variant="primary")
            back = gr.Button("Undo (U)", elem_id="alignsam-undo")
        choice = gr.Radio([POSITIVE, NEGATIVE], value=POSITIVE, show_label=False, container=False)
        line = gr.Markdown(elem_id="alignsam-line")
        with gr.Row():
            upload = gr.Image(label="photo", sources=["upload", "clipboard"], elem_id="alignsam-upload")
            photo = gr.Image(interactive=False, label="mask", format="jpeg", elem_id="alignsam-photo", buttons=[])
        go.click(segment, [upload, category], [photo, line], **QUIET)
        back.click(undo, None, [photo, line], **QUIET)
        photo.select(click, choice, [photo, line], js=SHIFT, **QUIET)
        page.unload(leave)
    return page


def _slowly(shown: Iterator[Shown]) -> Iterator[Shown]:
    """So that a person can follow."""
    for k, each in enumerate(shown):
        if k:
            time.sleep(SECONDS)
        yield each


def serve(page: gr.Blocks, host: str = "127.0.0.1", port: int | None = None, share: bool = False, wait: bool = True) -> str:
    """Show a page until Ctrl-C.

    :param host: whom it listens to; by default this machine only
    :param port: by default the first free one from 7860 on
    :param share: let Gradio's own servers pass it on to whoever has the link
    :param wait: until it is interrupted; otherwise return while it goes on
    :return: its address
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    forget_other_formats()
    if share:
        print("--share: Gradio's servers pass this page on to anybody who has the link, photos included")
    elif host not in ("127.0.0.1", "localhost", "::1"):
        print(f"--host {host}: everybody who reaches this machine can see these photos and decide about them")
    # Gradio serves what lies in the current folder's sub-folders unless it is told not to
    options: dict[str, Any] = {"server_name": host, "server_port": port, "share": share, "blocked_paths": [str(Path.cwd())]}
    _, address, _ = page.launch(**options, head=HEAD, prevent_thread_lock=True, quiet=True, ssr_mode=False, footer_links=[])
    print(f"Open {address} in a browser; Ctrl-C ends it")
    if wait:
        for ending in (signal.SIGINT, signal.SIGTERM):  # as Ctrl-C, also where a shell started it in the background
            signal.signal(ending, signal.default_int_handler)
        page.block_thread()
    return str(address)
