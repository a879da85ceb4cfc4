"""Two runs in threads of one process draw their reports at the same time."""

import threading

from matplotlib.figure import Figure

from sbi_core.report.figures import drawing_style, svg
from sbi_core.report.plots import math_label


def draw(results, errors, k):
    try:
        for j in range(6):
            with drawing_style():
                figure = Figure(figsize=(2, 2))
                ax = figure.subplots()
                ax.set(title=math_label(rf"\alpha_{{{k}{j}}}^\mathrm{{IMF}} / \sqrt{{{j}}}"))
                results[k].append(svg(figure))
    except Exception as error:
        errors.append(error)


def test_formulae_are_parsed_by_one_thread_at_a_time():
    results, errors = {k: [] for k in range(4)}, []
    threads = [threading.Thread(target=draw, args=(results, errors, k)) for k in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    alone = {}
    for k in results:
        alone[k] = []
        draw(alone, errors, k)
    assert results == alone
