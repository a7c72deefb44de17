"""What a training loop uses: `join`, `Group`, `Result`, `Work`, `Batch`, `Persistent`, `Transfer`.

    with collect.join("10.0.0.1:5555", min_peers=4) as group:
        result = group.all_reduce(gradients, "avg")

Members make the same calls in the same order. When one dies, the others' calls complete without it;
a result names who took part. docs/failure-model.md says what is promised.
"""

from collect.api.calls import Batch
from collect.api.group import Admission, Group, PeerInfo, join
from collect.api.messages import Delivery, Transfer
from collect.api.persistent import Persistent
from collect.api.subgroup import SubGroup
from collect.api.work import Result, Work
from collect.native.definition import Definition, Plan, plan
from collect.native.shared import empty, zeros

__all__ = [
    "Admission",
    "Batch",
    "Definition",
    "Delivery",
    "Group",
    "PeerInfo",
    "Persistent",
    "Plan",
    "Result",
    "SubGroup",
    "Transfer",
    "Work",
    "empty",
    "join",
    "plan",
    "zeros",
]
