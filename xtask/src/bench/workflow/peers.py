"""Peers written in Python: each builds one shape, runs it, and prints the seconds that the run alone took.

usage: peers.py PEER SHAPE STEPS FOLDER
The graph is built, and modules are loaded, before the clock starts.
"""

import pathlib
import sys
import time


def needs_of(shape, steps):
    """The needs of each step, as the Rust side writes them for everybody else."""
    if shape == "wide":
        return [[] for _ in range(steps)]
    if shape in ("chain", "resume", "cached"):
        return [[at - 1] if at else [] for at in range(steps)]
    if shape == "diamond":
        return [[]] + [[0] for _ in range(steps - 2)] + [list(range(1, steps - 1))]
    width = 100
    return [[at - width, at - width + (1 if (at + 1) % width else 1 - width)] if at >= width else []
            for at in range(steps)]


def timed(run):
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def langgraph(shape, steps, folder):
    import sqlite3
    from typing import Annotated, TypedDict

    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.graph import END, START, StateGraph

    class State(TypedDict):
        done: Annotated[int, lambda a, b: a + b]

    needs = needs_of(shape, steps)
    fails = {"now": shape == "resume"}

    def node(at):
        def act(state):
            if fails["now"] and at == steps - 1:
                raise RuntimeError("stopped here")
            return {"done": 1}
        return act

    graph = StateGraph(State)
    needed = set()
    for at in range(steps):
        graph.add_node(f"s{at}", node(at))
    for at, wanted in enumerate(needs):
        needed.update(wanted)
        if not wanted:
            graph.add_edge(START, f"s{at}")
        elif len(wanted) == 1:
            graph.add_edge(f"s{wanted[0]}", f"s{at}")
        else:
            graph.add_edge([f"s{need}" for need in wanted], f"s{at}")
    for at in range(steps):
        if at not in needed:
            graph.add_edge(f"s{at}", END)
    saver = SqliteSaver(sqlite3.connect(folder / "checkpoints.sqlite", check_same_thread=False))
    app = graph.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "1"}, "recursion_limit": steps + 10, "max_concurrency": 4}
    if shape != "resume":
        return timed(lambda: app.invoke({"done": 0}, config))
    try:
        app.invoke({"done": 0}, config)
    except RuntimeError:
        fails["now"] = False
    return timed(lambda: app.invoke(None, config))


def dask(shape, steps, folder):
    import operator

    from dask.threaded import get

    needs = needs_of(shape, steps)

    def act(*needed):
        return 1

    graph = {f"s{at}": (act, *[f"s{need}" for need in wanted]) for at, wanted in enumerate(needs)}
    needed = {need for wanted in needs for need in wanted}
    ends = [f"s{at}" for at in range(steps) if at not in needed]
    return timed(lambda: get(graph, ends, num_workers=4))


def luigi(shape, steps, folder):
    import logging

    import luigi as library

    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(10 * steps + 1000)
    needs = needs_of(shape, steps)

    class Step(library.Task):
        at = library.IntParameter()

        def requires(self):
            return [Step(at=need) for need in needs[self.at]]

        def output(self):
            return library.LocalTarget(str(folder / f"s{self.at}"))

        def run(self):
            with self.output().open("w"):
                pass

    needed = {need for wanted in needs for need in wanted}
    ends = [Step(at=at) for at in range(steps) if at not in needed]

    def build():
        library.build(ends, local_scheduler=True, workers=1, log_level="CRITICAL")

    if shape in ("cached", "resume"):
        build()
        if shape == "resume":
            (folder / f"s{steps - 1}").unlink()
    return timed(build)


def main():
    peer, shape, steps, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), pathlib.Path(sys.argv[4])
    seconds = {"langgraph": langgraph, "dask": dask, "luigi": luigi}[peer](shape, steps, folder)
    print(f"seconds {seconds:.6f}")


main()
