import base64
import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from service.bundle.manifest import ImageInput
from service.errors import (
    ClientError,
    DeadlineExceeded,
    InputInvalid,
    MediaTypeUnsupported,
    PayloadTooLarge,
    PictureUnreadable,
)
from service.inputs.images import ImageDecoder
from service.inputs.payload import UNTOLD, InputLimits, Payload

LIMITS = InputLimits(max_rows=4, max_picture_pixels=250_000, max_picture_side=1000)
SIDE = 8


@pytest.fixture
def decoder() -> ImageDecoder:
    return ImageDecoder(ImageInput(height=SIDE, width=SIDE, channels=1), "uint8", LIMITS)


@pytest.fixture
def colour_decoder() -> ImageDecoder:
    return ImageDecoder(ImageInput(height=SIDE, width=SIDE, channels=3), "float32", LIMITS)


def encoded(picture: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, file_format, **options)
    return stream.getvalue()


def png(picture: Image.Image, **options: Any) -> Payload:
    return Payload(encoded(picture, **options), "image/png")


def as_json(*instances: object) -> Payload:
    return Payload(json.dumps({"instances": instances}).encode(), "application/json")


def ramp() -> NDArray[np.uint8]:
    return np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE) * 3


def flat(value: int | tuple[int, ...], mode: str, size: tuple[int, int] = (SIDE, SIDE)) -> Payload:
    return png(Image.new(mode, size, value))


def only_value(decoder: ImageDecoder, payload: Payload) -> int:
    values = np.unique(decoder.decode(payload).rows)
    assert len(values) == 1
    return int(values[0])


def test_grey_picture_of_the_right_size_arrives_pixel_by_pixel(decoder: ImageDecoder) -> None:
    decoded = decoder.decode(png(Image.fromarray(ramp())))

    np.testing.assert_array_equal(decoded.rows[0], ramp())


def test_pixel_lists_and_png_are_the_same_row(decoder: ImageDecoder) -> None:
    deep = ramp()[..., None].tolist()
    decoded = decoder.decode(as_json(ramp().tolist()))
    also = decoder.decode(as_json(deep))
    mixed = decoder.decode(
        as_json(
            {"b64": base64.b64encode(encoded(Image.fromarray(ramp()))).decode()},
            deep,
            ramp().tolist(),
        )
    )

    for rows in (decoded.rows, also.rows, mixed.rows[:1], mixed.rows[1:2], mixed.rows[2:]):
        np.testing.assert_array_equal(rows[0], ramp())


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        pytest.param(flat(200, "L"), 200, id="grey"),
        pytest.param(flat(1, "1"), 255, id="black and white"),
        pytest.param(flat((200, 200, 200), "RGB"), 200, id="colour"),
        pytest.param(flat((200, 200, 200, 255), "RGBA"), 200, id="opaque"),
        pytest.param(flat(200 * 257, "I;16"), 200, id="16 bit"),
        pytest.param(png(Image.new("L", (SIDE, SIDE), 200).convert("P")), 200, id="palette"),
        pytest.param(
            Payload(encoded(Image.new("CMYK", (SIDE, SIDE), (0, 0, 0, 55)), "JPEG"), "image/jpeg"),
            200,
            id="CMYK",
        ),
        pytest.param(
            Payload(encoded(Image.new("L", (SIDE, SIDE), 200), "BMP"), "image/bmp"), 200, id="BMP"
        ),
        pytest.param(
            Payload(
                encoded(Image.new("RGB", (9, 9), (200,) * 3), "WEBP", lossless=True), "image/webp"
            ),
            200,
            id="WebP",
        ),
    ],
)
def test_every_mode_becomes_grey(decoder: ImageDecoder, payload: Payload, value: int) -> None:
    assert only_value(decoder, payload) == value


def test_dark_drawing_on_nothing_is_laid_on_white(decoder: ImageDecoder) -> None:
    drawing = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    drawing.paste((10, 10, 10, 255), (2, 2, 6, 6))

    row = decoder.decode(png(drawing)).rows[0]

    assert (row[0, 0], row[4, 4]) == (255, 10)


def test_light_drawing_on_nothing_is_laid_on_black(decoder: ImageDecoder) -> None:
    drawing = Image.new("RGBA", (SIDE, SIDE), (255, 255, 255, 0))
    drawing.paste((250, 250, 250, 255), (2, 2, 6, 6))

    row = decoder.decode(png(drawing)).rows[0]

    assert (row[0, 0], row[4, 4]) == (0, 250)


def test_palette_with_transparency_is_understood(decoder: ImageDecoder) -> None:
    picture = Image.new("P", (SIDE, SIDE), 0)
    picture.putpalette([0, 0, 0, 20, 20, 20])
    picture.paste(1, (2, 2, 6, 6))

    row = decoder.decode(png(picture, transparency=0)).rows[0]

    assert (row[0, 0], row[4, 4]) == (255, 20)


def test_grey_that_is_transparent_is_understood(decoder: ImageDecoder) -> None:
    picture = Image.new("L", (SIDE, SIDE), 0)
    picture.paste(20, (2, 2, 6, 6))

    row = decoder.decode(png(picture, transparency=0)).rows[0]

    assert (row[0, 0], row[4, 4]) == (255, 20)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_picture_is_turned_as_its_exif_says(decoder: ImageDecoder, file_format: str) -> None:
    picture = Image.new("L", (SIDE, SIDE), 0)
    picture.paste(255, (0, 0, SIDE, SIDE // 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter: its top is at the right
    content = encoded(picture, file_format, exif=exif, quality=95)

    row = decoder.decode(Payload(content, "image/jpeg")).rows[0].astype(int)

    assert row[:, -2:].min() > 200
    assert row[:, :2].max() < 50


def test_wide_picture_keeps_its_proportions_on_the_ground_of_its_border(
    decoder: ImageDecoder,
) -> None:
    picture = Image.new("L", (80, 40), 50)
    picture.paste(250, (20, 10, 60, 30))

    row = decoder.decode(png(picture)).rows[0].astype(int)

    assert row[0].tolist() == [50] * SIDE
    assert row[4, 4] > 200
    assert abs(row[:, 0] - 50).max() <= 2


def test_wide_picture_is_stretched_where_the_manifest_says_so() -> None:
    declared = ImageInput(height=SIDE, width=SIDE, channels=1, fit="stretch")
    decoder = ImageDecoder(declared, "uint8", LIMITS)
    picture = Image.new("L", (80, 40), 0)
    picture.paste(255, (0, 0, 80, 20))

    row = decoder.decode(png(picture)).rows[0].astype(int)

    assert row[0].min() == 255
    assert row[-1].max() == 0


def test_colour_model_gets_three_channels(colour_decoder: ImageDecoder) -> None:
    decoded = colour_decoder.decode(flat((10, 20, 30), "RGB", (20, 20)))

    assert decoded.rows.shape == (1, SIDE, SIDE, 3)
    assert decoded.rows.dtype == np.float32
    assert decoded.rows[0, 0, 0].tolist() == [10, 20, 30]


def form(*parts: bytes, name: str = "image") -> Payload:
    body = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="%b"; filename="a.png"\r\n\r\n%b\r\n'
        % (name.encode(), part)
        for part in parts
    )
    return Payload(body + b"--B--\r\n", "multipart/form-data", {"boundary": "B"})


def test_each_picture_of_a_form_has_its_own_row_or_error(decoder: ImageDecoder) -> None:
    good = encoded(Image.fromarray(ramp()))

    decoded = decoder.decode(form(good, b"rubbish", good))

    assert len(decoded.rows) == 2
    assert str(decoded.errors[1]).startswith("image[1]: expected a picture")


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        pytest.param(form(b"x", name="other"), "one named 'other'", id="other name"),
        pytest.param(form(), "at least one part", id="no part"),
        pytest.param(
            Payload(form(b"x").body[:-9], "multipart/form-data", {"boundary": "B"}),
            "cut off",
            id="cut off",
        ),
        pytest.param(
            Payload(b"rubbish", "multipart/form-data", {"boundary": "B"}), "form", id="rubbish"
        ),
        pytest.param(Payload(b"", "multipart/form-data"), "a boundary", id="no boundary"),
        pytest.param(
            Payload(b"", "multipart/form-data", {"boundary": "B" * 71}), "boundary", id="long"
        ),
    ],
)
def test_form_of_another_kind_is_refused(
    decoder: ImageDecoder, payload: Payload, expected: str
) -> None:
    with pytest.raises(InputInvalid, match=expected):
        decoder.decode(payload)


def test_form_of_too_many_parts_is_refused(decoder: ImageDecoder) -> None:
    with pytest.raises(PayloadTooLarge, match="cap of 4 parts"):
        decoder.decode(form(*[b"x"] * 5))


def change(place: tuple[int, int], value: object) -> list[list[object]]:
    pixels: list[list[object]] = ramp().tolist()
    pixels[place[0]][place[1]] = value
    return pixels


@pytest.mark.parametrize(
    ("instance", "expected"),
    [
        pytest.param(
            change((1, 2), 256), "[1][2]: expected a whole number 0-255, got 256", id="256"
        ),
        pytest.param(change((1, 2), -1), "[1][2]: expected a whole number 0-255, got -1", id="-1"),
        pytest.param(change((1, 2), 0.5), "[1][2]: expected a whole number 0-255, got 0.5", id="½"),
        pytest.param(change((1, 2), None), "[1][2]: expected a number, got null", id="null"),
        pytest.param(ramp()[:7].tolist(), "a list of 8 lists, got a list of 7", id="too low"),
        pytest.param(ramp()[:, :7].tolist(), "[0]: expected a list of 8 numbers", id="too narrow"),
        pytest.param([], "a list of 8 lists, got a list of 0", id="empty"),
        pytest.param({"b64": "%%%"}, "instances[0].b64: expected base64", id="no base64"),
        pytest.param({"b64": 3}, 'pixels or {"b64": "..."}', id="no string"),
        pytest.param({"url": "x"}, 'pixels or {"b64": "..."}', id="address"),
        pytest.param({"b64": "aGVsbG8="}, "instances[0].b64: expected a picture", id="no picture"),
    ],
)
def test_bad_row_is_named_and_its_neighbour_read(
    decoder: ImageDecoder, instance: object, expected: str
) -> None:
    decoded = decoder.decode(as_json(instance, ramp().tolist()))

    np.testing.assert_array_equal(decoded.rows[0], ramp())
    assert expected in str(decoded.errors[0])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_mask_is_black_and_white(dtype: str) -> None:
    declared = ImageInput(height=2, width=2, channels=1)
    masks = ImageDecoder(declared, dtype, LIMITS)

    rows = masks.decode_array(np.array([[[True, False], [False, True]]])).rows

    assert rows.tolist() == [[[255, 0], [0, 255]]]
    assert rows.dtype == dtype


def test_picture_scaled_to_one_gets_a_hint(decoder: ImageDecoder) -> None:
    decoded = decoder.decode(as_json((ramp() / 255).tolist()))

    assert "multiply it by 255" in str(decoded.errors[0])


def test_npy_rows_are_checked_like_any_other(decoder: ImageDecoder) -> None:
    stream = io.BytesIO()
    np.save(stream, np.stack([ramp().astype(int), ramp().astype(int) + 100]))

    decoded = decoder.decode(Payload(stream.getvalue(), "application/x-npy"))

    np.testing.assert_array_equal(decoded.rows[0], ramp())
    assert str(decoded.errors[1]).startswith("rows[1]")


@pytest.mark.parametrize(
    ("size", "error"),
    [
        pytest.param((600, 600), PayloadTooLarge, id="too many pixels"),
        pytest.param((1001, 20), PayloadTooLarge, id="too long"),
        pytest.param((1, 1), InputInvalid, id="one pixel"),
        pytest.param((3, 9), InputInvalid, id="too narrow"),
        pytest.param((900, 5), InputInvalid, id="a thread"),
    ],
)
def test_picture_of_a_hostile_size_is_refused_by_its_header(
    decoder: ImageDecoder, size: tuple[int, int], error: type[ClientError]
) -> None:
    with pytest.raises(error):
        decoder.decode(flat(0, "L", size))


@pytest.mark.parametrize("file_format", ["GIF", "TIFF", "PPM", "ICO"])
def test_other_formats_are_never_opened(decoder: ImageDecoder, file_format: str) -> None:
    content = encoded(Image.new("L", (SIDE, SIDE)), file_format)

    with pytest.raises(PictureUnreadable):
        decoder.decode(Payload(content, "image/png"))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "BMP"])
def test_truncated_picture_is_refused(decoder: ImageDecoder, file_format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    content = encoded(Image.fromarray(noise), file_format)

    with pytest.raises(PictureUnreadable):
        decoder.decode(Payload(content[: len(content) // 2], "image/png"))


@settings(max_examples=300)
@given(st.data())
def test_damaged_picture_is_a_row_or_a_client_error(data: st.DataObject) -> None:
    decoder = ImageDecoder(ImageInput(height=SIDE, width=SIDE, channels=1), "uint8", LIMITS)
    file_format = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]))
    content = bytearray(encoded(Image.fromarray(ramp()).resize((20, 20)), file_format))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    try:
        rows = decoder.decode(Payload(bytes(content), "image/png")).rows
    except ClientError:
        return

    assert rows.shape == (1, SIDE, SIDE)


@settings(max_examples=300)
@given(st.data(), st.sampled_from([1, 3]))
def test_plain_png_is_read_as_pillow_reads_it_damaged_or_not(
    data: st.DataObject, channels: int
) -> None:
    declared = ImageInput(height=SIDE, width=SIDE, channels=channels)
    shape = (SIDE, SIDE) if channels == 1 else (SIDE, SIDE, channels)
    size = SIDE * SIDE * channels
    pixels = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)
    content = bytearray(encoded(Image.fromarray(pixels.reshape(shape))))
    after_header = 33
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.integers(after_header, len(content) - 1))
        content[place : place + 1] = data.draw(st.binary(max_size=2))
    payload = Payload(bytes(content), "image/png")

    try:
        row = ImageDecoder(declared, "uint8", LIMITS).decode(payload).rows[0]
        expected = np.asarray(Image.open(io.BytesIO(content)))
    except (ClientError, OSError, SyntaxError):
        return

    np.testing.assert_array_equal(row, expected)


def test_other_media_types_are_refused(decoder: ImageDecoder) -> None:
    with pytest.raises(MediaTypeUnsupported, match="image/png"):
        decoder.decode(Payload(b"", "text/plain"))


def lying_png() -> bytes:
    content = bytearray(encoded(Image.new("L", (SIDE, SIDE))))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(content)


def png_with_text() -> Payload:
    chunks = PngInfo()
    chunks.add_text("comment", "a" * 100_000, zip=True)
    return png(Image.new("L", (SIDE, SIDE)), pnginfo=chunks)


def test_picture_whose_lines_end_early_is_refused(decoder: ImageDecoder) -> None:
    picture = encoded(Image.fromarray(ramp()), transparency=1)
    at = picture.index(b"IDAT") + 4
    (size,) = struct.unpack_from(">I", picture, at - 8)
    half = zlib.compress(zlib.decompress(picture[at : at + size])[: (SIDE + 1) * SIDE // 2])
    chunk = b"IDAT" + half
    short = struct.pack(">I", len(half)) + chunk + struct.pack(">I", zlib.crc32(chunk))

    with pytest.raises(PictureUnreadable):
        decoder.decode(Payload(picture[: at - 8] + short + picture[at + size + 4 :], "image/png"))


def test_picture_that_the_decoder_itself_finds_too_large_is_too_large(
    decoder: ImageDecoder,
) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    picture = encoded(Image.fromarray(ramp()))
    checksum = struct.pack(">I", zlib.crc32(b"IHDR" + header))

    with pytest.raises(PayloadTooLarge, match="250,000 pixels"):
        decoder.decode(Payload(picture[:16] + header + checksum + picture[33:], "image/png"))


def test_pictures_of_one_request_share_a_budget_of_pixels() -> None:
    limits = InputLimits(4, 250_000, 1000, max_request_pixels=1000)
    decoder = ImageDecoder(ImageInput(height=SIDE, width=SIDE, channels=1), "uint8", limits)
    picture = encoded(Image.new("L", (20, 20)))

    decoded = decoder.decode(form(picture, picture, picture))

    assert len(decoded.rows) == 2
    assert "image[2]" in str(decoded.errors[2])
    assert isinstance(decoded.errors[2], PayloadTooLarge)


def test_nothing_more_is_decoded_once_nobody_waits(decoder: ImageDecoder) -> None:
    payload = form(*[encoded(Image.new("L", (20, 20)))] * 3)
    payload.is_abandoned = True

    with pytest.raises(DeadlineExceeded):
        decoder.decode(payload)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_large_picture_of_any_mode_is_the_same_as_a_small_one(
    decoder: ImageDecoder, mode: str
) -> None:
    pattern = np.kron(np.eye(2, dtype=np.uint8) * 255, np.ones((4, 4), np.uint8))
    wide = np.kron(pattern, np.ones((50, 50), np.uint8))
    large = Image.fromarray(wide).convert(mode) if mode != "I;16" else sixteen_bit(wide)
    options = {"quality": 95} if mode == "CMYK" else {}
    content = encoded(large, "JPEG" if mode == "CMYK" else "PNG", **options)

    row = decoder.decode(Payload(content, "image/png")).rows[0].astype(int)

    # Edges are smoothed over one pixel; JPEG rings a little.
    inner = np.ix_([0, 1, 2, 5, 6, 7], [0, 1, 2, 5, 6, 7])
    assert np.abs(row - pattern.astype(int))[inner].max() <= 8


def sixteen_bit(values: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("make", "is_light"),
    [
        pytest.param(lambda: flat(0, "L"), True, id="small png"),
        pytest.param(lambda: as_json(ramp().tolist()), True, id="pixels"),
        pytest.param(lambda: as_json({"b64": "aGVsbG8="}), False, id="picture inside json"),
        pytest.param(lambda: flat(0, "L", (400, 400)), False, id="many pixels in few bytes"),
        pytest.param(lambda: Payload(lying_png(), "image/png"), False, id="lying header"),
        pytest.param(png_with_text, True, id="packed text, which is left out"),
        pytest.param(lambda: Payload(b"x", "image/png"), False, id="no header"),
        pytest.param(lambda: Payload(b"x", "image/jpeg"), False, id="jpeg"),
        pytest.param(lambda: Payload(b"x" * 100_000, "application/json"), False, id="large"),
    ],
)
def test_only_what_decodes_quickly_is_light(
    decoder: ImageDecoder, make: Callable[[], Payload], *, is_light: bool
) -> None:
    assert decoder.is_light(make()) is is_light


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_of_several_frames_only_the_first_is_read(decoder: ImageDecoder, file_format: str) -> None:
    frames = [Image.new("L", (SIDE, SIDE), value) for value in (200, 10, 20)]
    content = encoded(
        frames[0], file_format, save_all=True, append_images=frames[1:], lossless=True
    )

    assert only_value(decoder, Payload(content, f"image/{file_format.lower()}")) == 200


def test_wrong_rows_of_an_array_are_described_up_to_the_limit_and_the_others_are_read() -> None:
    declared = ImageInput(height=2, width=2, channels=1)
    decoder = ImageDecoder(declared, "uint8", replace(LIMITS, max_rows=5, max_row_errors=2))
    values = np.zeros((5, 2, 2), np.int8)
    values[1:4, 1, 0] = -1

    decoded = decoder.decode_array(values)

    assert decoded.rows.dtype == np.uint8
    assert decoded.rows.tolist() == [[[0, 0], [0, 0]]] * 2
    assert {position: str(error) for position, error in decoded.errors.items()} == {
        1: "rows[1][1][0]: expected a whole number 0-255, got -1",
        2: "rows[2][1][0]: expected a whole number 0-255, got -1",
        3: UNTOLD,
    }
