"""What ran where and for how long, from the study's events."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.patches import Patch, Rectangle

from ..hpc.events import format_clock
from .drawing import GREEN, GREY, LINE, ORANGE, QUIET, SIZE, SKY, VERMILLION, dress, legend_of, new_figure, picture_of

_COLOURS = {"simulate": SKY, "encode": ORANGE, "train": GREEN}
_ROWS = 24  # workers drawn; more would be unreadable
_PAUSE_SHARE = 0.08  # a pause longer than this share of the busy time is cut short in the drawing


@dataclass(frozen=True, kw_only=True)
class Span:
    """A task in time: ``start``, ``stop`` in s since the epoch, its stage and worker, and whether it failed."""

    verb: str
    worker: str
    start: float
    stop: float
    failed: bool


def task_spans(events) -> list[Span]:
    """When each task ran, from its end and its seconds; events without a readable time are left out."""
    spans = []
    for event in events:
        stop = _seconds(event)
        if event.get("event") != "task" or stop is None:
            continue
        taken = max(float(event.get("seconds") or 0.0), 0.0)
        worker = f"{event.get('host', '?')} · {event.get('pid', '?')}"
        failed = event.get("status") == "failed"
        spans.append(Span(verb=str(event.get("verb")), worker=worker, start=stop - taken, stop=stop, failed=failed))
    return sorted(spans, key=lambda span: span.start)


def stage_rows(events) -> list[dict]:
    """One row a stage: pieces, wall time, median and slowest task, peak memory; text, in the order of first start.

    Examples
    --------
    >>> stage_rows(read_events(study.events))[0]["Wall time"]        # doctest: +SKIP
    '4:12'
    """
    tasks, stages = defaultdict(list), defaultdict(list)
    for event in events:
        kind = {"task": tasks, "stage": stages}.get(event.get("event"))
        if kind is not None and event.get("verb"):
            kind[str(event["verb"])].append(event)
    return [_stage_row(verb, stages[verb], tasks[verb]) for verb in dict.fromkeys([*stages, *tasks])]


def _stage_row(verb, stages, tasks):
    # A stage that works in this process has no tasks, only its own count at each end.
    told = [int(task.get("size") or 0) - int(task.get("left") or 0) for task in tasks]
    pieces = sum(told or [int(stage.get("done") or 0) for stage in stages])
    failed = sum(int(task.get("failed") or 0) for task in tasks)
    unit = str(stages[-1].get("unit", "tasks")) if stages else "tasks"
    seconds = [float(task.get("seconds") or 0.0) for task in tasks]
    peak = max((int(task.get("peak_memory_bytes") or 0) for task in tasks), default=0)
    slowest = max(tasks, key=lambda task: float(task.get("seconds") or 0.0), default=None)
    return {
        "Stage": verb,
        "Pieces": f"{pieces - failed} {unit}" + (f", {failed} failed" if failed else ""),
        "Tasks": str(len(tasks)) if tasks else "–",
        "Workers": str(len({(task.get("host"), task.get("pid")) for task in tasks})) if tasks else "–",
        "Wall time": format_clock(_wall(stages, tasks)),
        "Median task": _duration(np.median(seconds)) if seconds else "–",
        "Slowest task": f"{_duration(max(seconds))} ({slowest.get('task', '?')})" if seconds else "–",
        "Peak memory": f"{peak / 1e9:.2f} GB" if peak else "not known",
    }


def _wall(stages, tasks):
    """Wall time of all runs of a stage; one that was killed counts up to its last task."""
    total, began = 0.0, None
    for event in stages:
        if began is not None:
            total += _until_last(began, _seconds(event), tasks) if event.get("state") == "started" else 0.0
        began = _seconds(event) if event.get("state") == "started" else None
        total += float(event.get("seconds") or 0.0)
    return total + (_until_last(began, None, tasks) if began is not None else 0.0)


def _until_last(began, until, tasks):
    ends = [
        end
        for task in tasks
        if (end := _seconds(task)) is not None and end >= began and (until is None or end <= until)
    ]
    return max(ends) - began if ends else 0.0


def _seconds(event):
    try:
        return datetime.fromisoformat(event["time"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


def _duration(seconds):
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 100 else format_clock(seconds)


# ---- drawing --------------------------------------------------------------------------------------------------------


def timeline_picture(events):
    """Draw a bar for every task, a row for every worker; None without tasks.

    Long pauses between runs are cut short, and marked.
    """
    spans = task_spans(events)
    if not spans:
        return None
    busiest = defaultdict(float)
    for span in spans:
        busiest[span.worker] += span.stop - span.start
    shown = sorted(busiest, key=busiest.get, reverse=True)[:_ROWS]
    workers = list(dict.fromkeys(span.worker for span in spans if span.worker in shown))
    place, pauses = _squeezed(spans)
    figure = new_figure(0.9 + 0.21 * max(len(workers), 2), width=6.6)
    axes = dress(figure.add_subplot(), xlabel="minutes of work, pauses cut short" if pauses else "minutes")
    _draw_bars(axes, spans, workers, place)
    for at, length in pauses:
        axes.axvline(at / 60, color=QUIET, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.text(
            at / 60, 1.01, f"pause {format_clock(length)}", fontsize=SIZE - 2, color=QUIET, va="bottom", ha="center",
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip
    verbs = list(dict.fromkeys(span.verb for span in spans))
    handles = [Patch(facecolor=_COLOURS.get(verb, GREY), label=verb) for verb in verbs]
    if any(span.failed for span in spans):
        handles.append(Patch(facecolor=VERMILLION, label="failed"))
    legend_of(figure, handles, len(handles))
    alt = f"Timeline of {len(spans)} tasks on {len(busiest)} workers, by stage ({', '.join(verbs)})"
    caption = "" if len(busiest) <= _ROWS else f"The {_ROWS} busiest of {len(busiest)} workers."
    return picture_of(figure, "timeline", alt, caption)


def _squeezed(spans):
    """Map times to seconds of the drawing, where long pauses take little room, and tell where those are."""
    starts = np.array([span.start for span in spans])
    reached = np.maximum.accumulate([span.stop for span in spans])
    gaps = np.r_[0.0, starts[1:] - reached[:-1]]
    busy = float(reached[-1] - starts[0] - gaps.clip(0).sum())
    limit = max(_PAUSE_SHARE * busy, 5.0)
    long = gaps > limit
    cuts = np.where(long, gaps - limit / 2, 0.0)
    shift = starts[0] + np.cumsum(cuts)

    def place(time):
        number = max(int(np.searchsorted(starts, time, side="right")) - 1, 0)
        return time - shift[number]

    pauses = [(starts[i] - shift[i] - limit / 4, gaps[i]) for i in np.flatnonzero(long)]
    return place, pauses


def _draw_bars(axes, spans, workers, place):
    rows = {worker: number for number, worker in enumerate(workers)}
    drawn = [span for span in spans if span.worker in rows]
    boxes, colours = [], []
    for span in drawn:
        start = place(span.start) / 60
        boxes.append(Rectangle((start, rows[span.worker] - 0.38), (span.stop - span.start) / 60, 0.76))
        colours.append(VERMILLION if span.failed else _COLOURS.get(span.verb, GREY))
    axes.add_collection(PatchCollection(boxes, facecolors=colours, edgecolors=LINE, linewidths=0.25))
    last = max(box.get_x() + box.get_width() for box in boxes)
    axes.set_xlim(0, max(last, 1e-3))
    axes.set_ylim(len(workers) - 0.4, -0.6)
    axes.set_yticks(range(len(workers)), workers)
