import pytest

from service.api.bodies import parse_content_type


@pytest.mark.parametrize(
    ("header", "media_type", "parameters"),
    [
        (b"", "", {}),
        (b"application/json", "application/json", {}),
        (b" Text/CSV ", "text/csv", {}),
        (b"text/plain; charset=UTF-8", "text/plain", {"charset": "UTF-8"}),
        (b'multipart/form-data; Boundary="a b"', "multipart/form-data", {"boundary": "a b"}),
        (b"rubbish;;;", "rubbish", {}),
        (b"multipart/form-data; boundary*=utf-8''abc", "multipart/form-data", {"boundary": "abc"}),
    ],
)
def test_content_type_is_a_media_type_and_its_parameters(
    header: bytes, media_type: str, parameters: dict[str, str]
) -> None:
    found, more = parse_content_type(header)

    assert found == media_type
    assert parameters.items() <= more.items()
