"""Every exception says who, what, when and what to do, and is caught by what a caller can do."""

import pytest

from collect import errors
from collect.errors import CollectError


def every_error() -> list[type[CollectError]]:
    found = [CollectError]
    for kind in found:
        found += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == errors.__name__]


def test_the_tree_is_grouped_by_what_a_caller_can_do() -> None:
    assert issubclass(errors.InvalidArgument, ValueError)
    assert issubclass(errors.Timeout, TimeoutError)
    assert issubclass(errors.Fenced, errors.MembershipLost)
    assert issubclass(errors.Closed, errors.MembershipLost)
    assert issubclass(errors.JoinRefused, errors.JoinFailed)
    assert issubclass(errors.CoordinatorUnreachable, errors.JoinFailed)
    for kind in (errors.Mismatch, errors.Aborted, errors.PeerLost, errors.StateMismatch):
        assert issubclass(kind, errors.OperationFailed)


@pytest.mark.parametrize("kind", every_error())
def test_the_text_says_who_what_when_and_what_to_do(kind: type[CollectError]) -> None:
    error = kind("b was late", peer="b", epoch=4, op="4.17", advice="try again")

    assert str(error) == "b was late (op 4.17, epoch 4); try again"
    assert (error.peer, error.epoch, error.op, error.advice) == ("b", 4, "4.17", "try again")


def test_a_text_that_names_the_operation_does_not_repeat_it() -> None:
    error = errors.Timeout("op 4.17: b was late", op="4.17", advice="")

    assert str(error) == "op 4.17: b was late"


@pytest.mark.parametrize("kind", every_error())
def test_a_copy_is_equal_in_all_but_its_traceback(kind: type[CollectError]) -> None:
    error = kind("it failed", peer="b", epoch=4, op="4.17")

    copy = error.again()

    assert copy is not error
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_operations_and_memberships_come_with_advice() -> None:
    for kind in every_error():
        if issubclass(kind, errors.OperationFailed | errors.MembershipLost) and (
            not kind.__subclasses__()
        ):
            assert kind.default_advice, kind
