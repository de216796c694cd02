"""Control tokens whose meaning is the same in every vocabulary that has them: the ends of turns and texts."""

from __future__ import annotations

# Nothing but the end of a turn or of a text.
ENDS = frozenset(
    {
        *("<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>"),
        *("<|return|>", "<|call|>", "<｜end▁of▁sentence｜>", "<|END_OF_TURN_TOKEN|>", "<|role_end|>", "[e~["),
        *("<|end|>", "<|end_of_sentence|>", "[EOS]", "[EOT]", "<EOT>"),
    }
)
# GLM ends its turn by beginning another's: tokens that mean the end where a template has both.
ROLE_ENDS = ("<|user|>", "<|observation|>")
# Ends a turn in Phi's templates.  In harmony it ends one channel, and the answer goes on in the next.
HARMONY_TURN_END = "<|end|>"
