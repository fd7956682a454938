"""What a running server has counted, read from its exposition."""

import httpx
from prometheus_client.parser import text_string_to_metric_families


def value(client: httpx.Client, name: str, **labels: str) -> float:
    """Return the sum of the samples of that name with these labels."""
    text = client.get("/metrics").text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def value_at(address: str, name: str, **labels: str) -> float:
    """Return the same of the server at an address."""
    with httpx.Client(base_url=address) as client:
        return value(client, name, **labels)
