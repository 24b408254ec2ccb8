"""The curves as a small picture inside the page, for where no script runs."""

import io

_WIDTH = 1200  # pixels; curves.png has more
_COLOURS = 128


def shrink(png: bytes) -> bytes:
    """The same picture in fewer pixels and colours, a fifth of the bytes."""
    from PIL import Image  # matplotlib's own writer of PNG files

    with Image.open(io.BytesIO(png)) as opened:
        picture = opened.convert("RGB")
    picture = picture.resize((_WIDTH, round(picture.height * _WIDTH / picture.width)), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    picture.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(out, "PNG")
    return out.getvalue()
