"""An engine that answers every prompt at once, by what the prompt says."""

from __future__ import annotations

from pathlib import Path

from rotary_batch.core import Completion, NewTokens, StepReport
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.testing import FakeEngine


class AnsweringEngine(FakeEngine):
    """Says of each prompt what `answer` of a subclass returns."""

    def __init__(self, pack: Path) -> None:
        super().__init__()
        self._tokenizer = Tokenizer.load(pack)

    def answer(self, prompt: str) -> str:
        raise NotImplementedError

    def step(self) -> StepReport:
        done, new = [], []
        for request_id, (request, _) in self._live.items():
            ids = tuple(self._tokenizer.encode(self.answer(self._tokenizer.decode(request.prompt_ids))))
            new.append(NewTokens(request_id=request_id, token_ids=ids, logprob_sum=-1.0))
            done.append(
                Completion(request_id=request_id, token_ids=ids, logprob_sum=-1.0, num_scored=len(ids), reason="stop")
            )
        self._live.clear()
        return StepReport(new_tokens=tuple(new), completions=tuple(done), decode_tokens=len(new))
