import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import picture_files as files
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.bundle.manifest import ImageInput
from service.errors import InputInvalid, PayloadTooLarge, PictureUnreadable
from service.inputs.payload import InputLimits
from service.inputs.pictures import PictureBudget, read_picture

SIDE = 8
LIMITS = InputLimits(max_rows=4, max_picture_pixels=16_000_000, max_picture_side=16_384)
GREY = ImageInput(height=SIDE, width=SIDE, channels=1)


def pixels_of(content: bytes, declared: ImageInput = GREY) -> NDArray[np.uint8]:
    return read_picture(content, declared, PictureBudget(LIMITS, None), "body")


def ramp(side: int = SIDE) -> Image.Image:
    return Image.fromarray(np.arange(side * side, dtype=np.uint8).reshape(side, side))


def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


LONG = zlib.compress(bytes(2_000_000))
ODD_CHUNKS = {
    "colour profile of 2 MB": files.png_chunk(b"iCCP", b"icc\0\0" + LONG),
    "colour profile packed in an unknown way": files.png_chunk(b"iCCP", b"icc\0\1" + LONG),
    "empty colour profile": files.png_chunk(b"iCCP", b""),
    "packed text of 2 MB": files.png_chunk(b"zTXt", b"k\0\0" + LONG),
    "XMP of 2 MB": files.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG),
    "text with a wrong checksum": files.png_chunk(b"tEXt", b"k\0v", checksum=1),
    "short gamma": files.png_chunk(b"gAMA", b"\0"),
    "short size of a pixel": files.png_chunk(b"pHYs", b"\0"),
    "short chromaticities": files.png_chunk(b"cHRM", b"\0"),
    "short rendering intent": files.png_chunk(b"sRGB", b""),
    "short transparency": files.png_chunk(b"tRNS", b"\0"),
    "transparency with a wrong checksum": files.png_chunk(b"tRNS", b"\0\1", checksum=1),
    "short EXIF": files.png_chunk(b"eXIf", b"II"),
    "animation of no frames": files.png_chunk(b"acTL", bytes(8)),
    "unknown chunk": files.png_chunk(b"quIt", b"?"),
}


@pytest.mark.parametrize("side", [SIDE, 40])
@pytest.mark.parametrize("chunks", ODD_CHUNKS.values(), ids=ODD_CHUNKS)
def test_metadata_of_a_png_never_decides_whether_it_is_read(chunks: bytes, side: int) -> None:
    picture = ramp(side)

    np.testing.assert_array_equal(
        pixels_of(files.png_with(picture, chunks)), pixels_of(files.encoded(picture, "PNG"))
    )


def test_unknown_chunk_that_a_decoder_must_understand_is_refused() -> None:
    with pytest.raises(PictureUnreadable):
        pixels_of(files.png_with(ramp(40), files.png_chunk(b"IDAt", b"?", checksum=1)))


def test_sound_transparency_of_a_png_is_used() -> None:
    picture = Image.new("L", (40, 40), 7)
    content = files.png_with(picture, files.png_chunk(b"tRNS", b"\0\7"))

    assert set(pixels_of(content).ravel()) == {255}


ODD_TAGS = {
    "resolution as text": (files.X_RESOLUTION, files.ASCII, 4, 0x6161),
    "resolution of no values": (files.X_RESOLUTION, 5, 0, 0),
    "unknown type": (files.X_RESOLUTION, 99, 1, 0),
    "value beyond the end": (files.X_RESOLUTION, 5, 1, 0xFFFFFFF0),
    "maker note of 4 GB": (0x927C, 7, 0xFFFFFFFF, 8),
}


@pytest.mark.parametrize("tag", ODD_TAGS.values(), ids=ODD_TAGS)
@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
def test_odd_tags_do_not_keep_a_picture_from_being_turned(
    tag: tuple[int, int, int, int], order: str
) -> None:
    picture = scene(64, 32)
    block = files.exif_block((files.ORIENTATION, files.SHORT, 1, 6), tag, order=order)
    turned = picture.transpose(Image.Transpose.ROTATE_270)

    row = pixels_of(files.jpeg_with_exif(picture, block)).astype(int)

    expected = pixels_of(files.encoded(turned, "JPEG", quality=95)).astype(int)
    assert np.abs(row - expected).max() <= 4  # blocks of JPEG lie elsewhere


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"II*\0\xff\xff\xff\xff", id="directory beyond the end"),
        pytest.param(files.exif_block((files.ORIENTATION, files.ASCII, 2, 54)), id="text"),
        pytest.param(files.exif_block((files.ORIENTATION, files.SHORT, 1, 9)), id="nine"),
    ],
)
def test_picture_without_a_sound_orientation_stays_as_it_is(block: bytes) -> None:
    picture = scene(64, 32)

    np.testing.assert_array_equal(
        pixels_of(files.jpeg_with_exif(picture, block)),
        pixels_of(files.encoded(picture, "JPEG", quality=95)),
    )


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_large_picture_is_turned_as_its_exif_says(file_format: str) -> None:
    picture = scene(384, 192)
    exif = Image.Exif()
    exif[files.ORIENTATION] = 6
    options = {"lossless": True} if file_format == "WEBP" else {}

    row = pixels_of(files.encoded(picture, file_format, exif=exif.tobytes(), **options))

    turned = picture.transpose(Image.Transpose.ROTATE_270)
    expected = pixels_of(files.encoded(turned, file_format, **options))
    assert np.abs(row.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
@pytest.mark.parametrize("side", [SIDE, 64, 500])
def test_jpeg_without_its_end_marker_is_the_same_picture(
    options: dict[str, bool], side: int
) -> None:
    content = files.encoded(scene(side, side), "JPEG", quality=90, **options)

    np.testing.assert_array_equal(pixels_of(content[:-2]), pixels_of(content))


def test_jpeg_of_which_a_part_misses_is_refused() -> None:
    content = files.encoded(scene(64, 64), "JPEG", quality=95)

    for share in (0.5, 0.8, 0.95):
        with pytest.raises(PictureUnreadable):
            pixels_of(content[: int(len(content) * share)])


def test_jpeg_is_read_whatever_its_application_segments_hold() -> None:
    content = files.encoded(scene(64, 64), "JPEG")
    junk = b"".join(
        b"\xff%c\x00\x06\x01\x02\x03\x04" % marker for marker in (*range(0xE0, 0xF0), 0xFE)
    )

    np.testing.assert_array_equal(pixels_of(content[:2] + junk + content[2:]), pixels_of(content))


def test_bmp_whose_fourth_byte_is_unused_is_opaque() -> None:
    picture = ramp()

    np.testing.assert_array_equal(
        pixels_of(files.bmp_with_empty_alpha(picture)), np.asarray(picture)
    )


def run_length_bmp(width: int, height: int, runs: bytes) -> bytes:
    palette = bytes(1024)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + palette + runs


@pytest.mark.parametrize(
    ("make", "cap"),
    [
        pytest.param(lambda: files.jpeg_of_scans(101), "100 scans", id="scans"),
        pytest.param(lambda: files.jpeg_of_segments(4097), "4,096 segments", id="segments"),
        pytest.param(
            lambda: files.png_with(ramp(40), files.png_chunk(b"quIt", b"") * 10_001),
            "10,000 chunks",
            id="chunks",
        ),
        pytest.param(lambda: files.webp_of_frames(1025), "1,024 frames", id="frames"),
        pytest.param(
            lambda: run_length_bmp(2100, 2100, b"\1\0\0\0" * 2100), "4,194,304 pixels", id="runs"
        ),
        pytest.param(
            lambda: run_length_bmp(100, 100, b"\0\0" * 1_048_576), "2,097,152 bytes", id="run bytes"
        ),
    ],
)
def test_picture_that_asks_for_too_much_work_is_refused(
    make: Callable[[], bytes], cap: str
) -> None:
    with pytest.raises(PayloadTooLarge, match=f"body: .*{cap}"):
        pixels_of(make())


def test_progressive_jpeg_of_a_hundred_scans_is_read() -> None:
    assert pixels_of(files.jpeg_of_scans(100)).shape == (SIDE, SIDE)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 95}], ids=["exact", "lossy"])
@pytest.mark.parametrize("size", [(24, 16), (60, 40), (1000, 700)], ids=str)
def test_webp_of_any_size_is_what_a_png_of_it_is(
    mode: str, options: dict[str, object], size: tuple[int, int]
) -> None:
    picture = scene(*size).convert(mode)
    declared = ImageInput(height=SIDE, width=SIDE, channels=3)

    row = pixels_of(files.encoded(picture, "WEBP", **options), declared).astype(int)

    # The lossy one keeps colours at half the size; sides are divided a little differently.
    expected = pixels_of(files.encoded(picture, "PNG"), declared).astype(int)
    assert np.abs(row - expected).mean() <= (4 if "lossless" in options else 16)


def test_first_frame_of_a_webp_lies_where_it_says_on_its_canvas() -> None:
    first = Image.new("RGBA", (400, 400), (0, 0, 0, 0))
    first.paste((10, 10, 10, 255), (100, 200, 300, 400))
    second = Image.new("RGBA", (400, 400), (255, 255, 255, 255))
    content = files.encoded(
        first, "WEBP", save_all=True, append_images=[second], lossless=True, minimize_size=True
    )

    row = pixels_of(content)

    assert (row[6, 3], row[1, 1], row[6, 7]) == (10, 255, 255)


@pytest.mark.parametrize("length", [4, 12, 16, 20, 26, 30, 40])
def test_webp_that_is_cut_off_is_refused(length: int) -> None:
    content = files.encoded(scene(40, 40), "WEBP")

    with pytest.raises(PictureUnreadable):
        pixels_of(content[:length])


def test_webp_of_a_hostile_size_is_refused_before_it_is_decoded() -> None:
    head = b"\x2f" + ((13_000 - 1) | (13_000 - 1) << 14).to_bytes(4, "little")
    chunk = b"VP8L" + struct.pack("<I", len(head)) + head + b"\0"
    content = b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk

    with pytest.raises(PayloadTooLarge, match="16,000,000 pixels"):
        pixels_of(content)


def test_transparent_colour_of_a_large_picture_is_not_mixed_with_its_neighbours() -> None:
    stripes = np.zeros((400, 400), np.uint8)
    stripes[:, ::2] = 7
    content = files.encoded(Image.fromarray(stripes), "PNG", transparency=7)

    assert pixels_of(content).min() >= 120  # half black, half nothing on white


def test_long_picture_is_reduced_without_a_copy_of_its_own_size() -> None:
    picture = scene(8000, 100)

    row = pixels_of(files.encoded(picture, "PNG"))

    assert row.shape == (SIDE, SIDE)


def test_size_is_named_where_a_picture_is_too_small() -> None:
    with pytest.raises(InputInvalid, match="3 x 3"):
        pixels_of(files.encoded(Image.new("L", (3, 3)), "PNG"))


def test_junk_that_begins_like_a_picture_is_refused() -> None:
    for start in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"BM", b""):
        with pytest.raises(PictureUnreadable):
            pixels_of(start + io.BytesIO(bytes(range(256))).getvalue())
