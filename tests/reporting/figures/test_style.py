import subprocess
import sys

from ciess.reporting.figures.style import STYLES


def test_every_method_has_its_own_look():
    assert len({style.color for style in STYLES.values()}) == len({style.marker for style in STYLES.values()}) == 8


def test_drawing_leaves_pyplot_alone():
    code = "import sys, ciess.reporting.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
