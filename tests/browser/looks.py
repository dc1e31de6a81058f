"""Pictures: what a page looks like, against a committed one, within a tolerance.

Both are made a quarter as wide and high, so that the smoothing of a letter's edge, which differs
from one Chromium to the next, is as good as gone; then few points may differ, and only by a little.
WEIR_PICTURES=new writes what is seen as what is wanted; look at it before it is committed.
"""
import io
import os

from PIL import Image, ImageChops

WANTED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pictures")
SMALLER = 4
POINT = 28                              # of 255: a point differs
SHARE = 0.0015                          # of all points may


def compare(png, name, seen):
    """Fails when the picture is another than pictures/NAME.png; what was seen is left in `seen`."""
    wanted = os.path.join(WANTED, name + ".png")
    have = Image.open(io.BytesIO(png)).convert("RGB")
    if os.environ.get("WEIR_PICTURES") == "new":
        os.makedirs(WANTED, exist_ok=True)
        have.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(wanted, optimize=True)
        return
    want = Image.open(wanted).convert("RGB")
    assert have.size == want.size, "%s: %s instead of %s" % (name, have.size, want.size)
    points = difference(have, want)
    share = sum(points) / len(points)
    if share > SHARE:
        path = os.path.join(str(seen), name + ".png")
        have.save(path)
        raise AssertionError("%s: %.2f %% of it looks different; see %s" % (name, 100 * share, path))


def difference(a, b):
    """For each point of the smaller pictures, whether it differs."""
    size = (max(1, a.width // SMALLER), max(1, a.height // SMALLER))
    both = [p.resize(size, Image.Resampling.BOX) for p in (a, b)]
    bands = ImageChops.difference(*both).split()
    most = ImageChops.lighter(ImageChops.lighter(bands[0], bands[1]), bands[2])
    return [v > POINT for v in most.getdata()]
