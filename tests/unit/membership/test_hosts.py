"""Hosts are numbered by what members claim."""

from collect.membership import hosts
from collect.types import Member, View


def test_hosts_are_numbered_by_first_appearance_in_rank_order() -> None:
    members = tuple(Member(i + 1, f"p{i}", host, ()) for i, host in enumerate("abac"))

    assert hosts.numbers(View(1, members, 9)) == (0, 1, 0, 2)
