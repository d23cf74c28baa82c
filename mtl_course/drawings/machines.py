"""Drawings of chapter 3: who works when, Python or the GPU."""

from .pen import Pen, drawing

PREPARE, WORK, STEPS = 20, 30, 4  # milliseconds, as in the chapter's cell; steps drawn


@drawing
def gpu_queue() -> Pen:
    pen = Pen(
        "gpu_queue", 440, 330, "The GPU's queue",
        """Two pairs of timelines of four steps. Above, Python asks for nothing: it prepares step
        after step and runs ahead, and the GPU works without a gap. Below, Python asks for the
        loss in each step: it waits, in dashed boxes, until the GPU is done, and then the GPU
        has nothing to do while Python prepares the next step. The same work ends later.""",
    )  # fmt: skip
    left, unit = 76, 1.72  # pixels for a millisecond

    def span(y: float, start: float, end: float, label: str, role: str, dashed=False) -> None:
        pen.box(left + unit * start, y - 16, unit * (end - start), 32, label, role, dashed=dashed,
                fill=0 if dashed else 0.2, size=14)  # fmt: skip

    finished = []
    for asks in (False, True):
        with pen.moved(0, 154 * asks):
            pen.text(4, 12, "Python asks in each step" if asks else "nothing is asked", bold=True,
                     anchor="start")  # fmt: skip
            python, gpu = 0.0, 0.0
            for step in range(1, STEPS + 1):
                span(50, python, python + PREPARE, str(step), "source")
                python += PREPARE
                start = max(gpu, python)
                pen.arrow((left + unit * python - 3, 66), (left + unit * start + 5, 92),
                          width=1.3)  # fmt: skip
                span(108, start, start + WORK, str(step), "shared")
                gpu = start + WORK
                if asks:
                    span(50, python, gpu, "waits" if step == 1 else "", "soft", dashed=True)
                    pen.arrow((left + unit * gpu - 4, 92), (left + unit * gpu - 1, 66), width=1.3)
                    python = gpu
            finished.append(gpu)
            pen.text(68, 50, "Python", anchor="end")
            pen.text(68, 108, "GPU", anchor="end")
            end = left + unit * gpu
            pen.line([(end, 84), (end, 134)], width=2.4)
            pen.text(end + (8 if not asks else -8), 134 if not asks else 137, f"{gpu:g} ms", 14,
                     "start" if not asks else "end")  # fmt: skip
    pen.arrow((left, 318), (left + unit * max(finished), 318), width=1.3)
    pen.text(68, 318, "time", 14, "end")
    return pen
