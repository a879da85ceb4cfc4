"""Images that come from the records of a run are drawings, or are refused."""

import pytest
from matplotlib import pyplot

from sbi_core.analyses import Drawing, Section
from sbi_core.errors import RunDirectoryError
from sbi_core.report.figures import section_records
from sbi_core.report.html import _with_markup


def test_what_we_draw_passes():
    figure, axes = pyplot.subplots(1, 2)
    axes[0].plot([1, 2], [3, 4], "o", label=r"$\alpha$ <b> on x = 3 & javascript")
    axes[0].legend()
    axes[0].fill_between([1, 2], [1, 2], hatch="//")
    axes[1].imshow([[1, 2], [3, 4]])
    records = section_records([Section("title", drawings=(Drawing(figure, "words"),))], "x")
    pyplot.close(figure)
    assert _with_markup(records[0])["pictures"][0]["svg"].startswith("<svg")


@pytest.mark.parametrize(
    "inner",
    [
        "<script>alert(1)</script>",
        "<ScRiPt href='data:text/javascript,alert(1)'/>",
        "<g onload='alert(1)'/>",
        "<g/onclick=alert(1)>",
        "<a href='javascript:alert(1)'>x</a>",
        "<a xlink:href='https://example.org'>x</a>",
        "<a href='java&#115;cript:alert(1)'>x</a>",
        "<image href='//example.org/x.png'/>",
        "<foreignObject><b/></foreignObject>",
        "<style>@import 'x.css'</style>",
        "<rect style='fill:url(https://example.org)'/>",
        "<!ENTITY x 'y'>",
        "</svg><img src=x>",
    ],
)
def test_anything_that_acts_or_loads_is_refused(inner):
    with pytest.raises(RunDirectoryError, match="the records were altered"):
        _with_markup({"pictures": [{"svg": f"<svg>{inner}</svg>"}]})


def test_what_is_no_image_is_refused():
    with pytest.raises(RunDirectoryError, match="no svg element"):
        _with_markup({"pictures": [{"svg": "hello"}]})
