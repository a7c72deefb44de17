"""Settings: argument, else environment, else default; what is malformed is named."""

import pytest

from collect.config import (
    STREAMS_AUTO,
    Address,
    AdmitMode,
    Algorithm,
    Transport,
    load,
    parse_address,
)
from collect.errors import InvalidArgument


def test_without_anything_the_defaults_hold() -> None:
    config = load({}, {})

    assert config.address is None
    assert (config.group, config.min_peers, config.timeout, config.port) == ("default", 1, 5.0, 0)
    assert config.admit is AdmitMode.AUTO
    assert config.algorithm is Algorithm.AUTO
    assert (config.commit_bytes, config.transport) == (256 * 1024, Transport.AUTO)
    assert config.name


def test_an_argument_wins_over_the_environment_and_that_over_the_default() -> None:
    environment = {
        "COLLECT_ADDRESS": "[::1]:5000",
        "COLLECT_TIMEOUT": "2.5",
        "COLLECT_NAME": "from-environment",
        "COLLECT_ADMIT": "Manual",
        "COLLECT_ADVERTISE": "10.0.0.1, fe.example.org",
        "COLLECT_GROUP": "",
        "COLLECT_COMMIT_BYTES": "0",
        "COLLECT_TRANSPORT": "TCP",
    }

    config = load({"name": "given", "timeout": None}, environment)

    assert config.address == Address("::1", 5000)
    assert config.timeout == 2.5
    assert config.name == "given"
    assert config.admit is AdmitMode.MANUAL
    assert config.advertise == ("10.0.0.1", "fe.example.org")
    assert config.group == "default"
    assert (config.commit_bytes, config.transport) == (0, Transport.TCP)


@pytest.mark.parametrize(
    ("given", "bytes_per_s"),
    [
        ("100Mbit", 12_500_000),
        ("1.5 Gbit", 187_500_000),
        ("8 bit", 1),
        ("12MB", 12_000_000),
        ("3kB", 3_000),
        (125_000_000, 125_000_000),
    ],
)
def test_a_bandwidth_is_a_rate_with_a_unit_or_bytes(given: object, bytes_per_s: int) -> None:
    assert load({"bandwidth": given}, {}).bandwidth == bytes_per_s
    assert load({}, {}).bandwidth == 0


def test_streams_are_a_number_or_found_out() -> None:
    assert load({}, {}).streams == STREAMS_AUTO
    assert load({}, {"COLLECT_STREAMS": "AUTO"}).streams == STREAMS_AUTO
    assert load({"streams": 3}, {}).streams == 3


def test_every_other_time_follows_from_the_timeout() -> None:
    config = load({"timeout": 8}, {})

    assert (config.silence_s, config.connect_s) == (8.0, 8.0)
    assert (config.ping_s, config.operation_s) == (2.0, 480.0)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("timeout", "soon", "number of seconds"),
        ("timeout", 0, "number of seconds"),
        ("timeout", float("nan"), "number of seconds"),
        ("timeout", True, "number of seconds"),
        ("min_peers", 0, "from 1 to 1024"),
        ("min_peers", 1.5, "from 1 to 1024"),
        ("streams", 17, "from 1 to 16, or 'auto'"),
        ("streams", "many", "from 1 to 16, or 'auto'"),
        ("chunk_bytes", 100, "multiple of 64"),
        ("chunk_bytes", 2 << 20, "from 64 to"),
        ("port", 65536, "from 0 to 65535"),
        ("commit_bytes", -1, "from 0 to 2147483648"),
        ("commit_bytes", (1 << 31) + 1, "from 0 to 2147483648"),
        ("transport", "rdma", "'auto', 'tcp'"),
        ("bandwidth", "100Mb", "a rate per second"),
        ("bandwidth", "fast", "a rate per second"),
        ("bandwidth", "0bit", "a rate per second"),
        ("bandwidth", True, "a rate per second"),
        ("bandwidth", 1.5, "a rate per second"),
        ("admit", "sometimes", "'auto', 'manual'"),
        ("algorithm", "butterfly", "'auto', 'direct', 'ring', 'star'"),
        ("name", "", "printable"),
        ("name", "two\nlines", "printable"),
        ("group", "x" * 65, "1 to 64"),
        ("advertise", "10.0.0.1:5000", "without a port"),
        ("interface", 7, "must be text"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_is_allowed(
    name: str, value: object, allowed: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load({name: value}, {})

    assert caught.value.message.startswith(f"{name} is ")
    assert allowed in caught.value.message


def test_a_malformed_variable_is_named() -> None:
    with pytest.raises(InvalidArgument, match="COLLECT_STREAMS is 'many'"):
        load({}, {"COLLECT_STREAMS": "many"})


def test_a_window_smaller_than_four_chunks_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="window_bytes 4096 must be at least 4"):
        load({"chunk_bytes": 2048, "window_bytes": 4096}, {})


def test_a_misspelt_variable_is_not_ignored() -> None:
    with pytest.raises(InvalidArgument, match="do you mean COLLECT_ADDRESS"):
        load({}, {"COLLECT_ADRESS": "127.0.0.1:1"})

    load({}, {"COLLECT_SOMETHING_ELSE": "1"})


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="unknown setting 'adress'"):
        load({"adress": "x"}, {})


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:5000", "127.0.0.1", 5000),
        ("[::1]:5", "::1", 5),
        ("[::]:0", "::", 0),
        ("[fe80::1%eth0]:9", "fe80::1%eth0", 9),
        ("host-1.example.org:65535", "host-1.example.org", 65535),
        (" localhost:80 ", "localhost", 80),
    ],
)
def test_addresses_are_read_and_written(text: str, host: str, port: int) -> None:
    address = parse_address(text)

    assert address == Address(host, port)
    assert str(address) == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        ":5",
        "host:",
        "host:x",
        "host:65536",
        "host:-1",
        "::1:5",
        "[::1]",
        "[host]:5",
        "[127.0.0.1]:5",
        "1.2.3:5",
        "1.2.3.4.5:5",
        "a b:5",
        "-x:5",
        "host:５",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_address(text, "COLLECT_ADDRESS")

    assert caught.value.message.startswith("COLLECT_ADDRESS ")


def test_the_port_to_join_is_not_0() -> None:
    with pytest.raises(InvalidArgument, match="must not be 0"):
        load({"address": "127.0.0.1:0"}, {})
