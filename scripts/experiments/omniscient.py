"""Omniscient attackers: nodes that see every honest update of a round before they send their own.

No real node can do this. The in-process grid has all replies of a round before it delivers any, so it can play this
worst case.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass

import torch
from flwr.app import Message

from clients.attacks.base import Seen, find_attack
from clients.attacks.reply_editing import open_reply, parcel_blocks, refill_reply, with_blocks
from clients.attacks.updates import DISTINCT, gaussian_noise
from trfmoe_core.blocks import Blocks
from trfmoe_core.config import DrillConfig
from trfmoe_core.seeds import seed_for


@dataclass(frozen=True, kw_only=True)
class OmniscientAttackers:
    """Replaces the attackers' updates in the replies of one round: an `exchange` for `InProcessGrid`.

    Attributes:
        drill: Names an attack that works on updates.
        attackers: Flower node ids.
    """

    drill: DrillConfig
    attackers: Set[int]

    def __call__(self, replies: Mapping[str, Message]) -> dict[str, Message]:
        """Returns the replies (by message id) that arrive; those of other nodes are as they were."""
        opened = {key: found for key, message in replies.items() if (found := open_reply(message))}
        attacking = [key for key in opened if replies[key].metadata.src_node_id in self.attackers]
        honest = [parcel_blocks(parcel) for key, (_, parcel) in opened.items() if key not in attacking]
        result = dict(replies)
        for key in attacking:
            reply, parcel = opened[key]
            wrong = self.wrong_updates(parcel_blocks(parcel), honest, reply.round, reply.name)
            told = reply.model_copy(update={"drill": self.drill.label})
            result[key] = refill_reply(replies[key], told, with_blocks(parcel, wrong))
        return result

    def wrong_updates(self, own: Blocks, honest: list[Blocks], round_number: int, name: str) -> Blocks:
        """Returns what one attacker sends; two attackers of a round never send the same bits.

        Args:
            own: The attacker's honest updates.
            honest: Updates of the honest nodes.
            round_number: With the name, the seed of random numbers.
            name: Of the attacker.
        """
        attack = find_attack(self.drill.attack)
        generator = torch.Generator().manual_seed(seed_for(round_number, name))
        seen = Seen(drill=self.drill, round=round_number, generator=generator, honest=honest)
        wrong = attack.on_updates(own, seen) if attack.on_updates else own
        if len(self.attackers) == 1:
            return wrong
        shared = [block for block in wrong if any(block in blocks for blocks in honest)]
        return wrong | {block: wrong[block] + gaussian_noise(wrong[block], DISTINCT, generator) for block in shared}
