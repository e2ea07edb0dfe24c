"""The vLLM room: sampling and scoring, on a GPU or with vLLM's CPU build."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mothertongue import hardware
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.params import Dtype
from mothertongue.sampling import Choose, Generate, Text, Weigh


class VLLM:
    """vLLM's offline engine on one model folder."""

    def __init__(self, folder: Path, dtype: Dtype, chat: Chat) -> None:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        # The engine in this process: with a second one, the order in which requests arrive depends on timing.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from vllm import LLM

        logging.getLogger("vllm").setLevel(logging.ERROR)
        gpu = hardware.gpu()
        self.folder, self.chat = folder, chat
        # A batch is what a kill can lose, and where the engine drains: small on a CPU, which gains nothing from more.
        self.batch = 2048 if gpu else 96
        self._llm: Any = LLM(
            model=str(folder),
            dtype=dtype,
            max_model_len=-1,  # the model's own, or what the memory for its cache holds
            seed=0,
            enforce_eager=not gpu,
            trust_remote_code=False,
            # Cached prefixes would make a batch's numbers depend on the batches before it.
            enable_prefix_caching=False,
            # Without it, vLLM's CPU sampler fails on seeds ("CPU Generator does not use offset").
            enable_chunked_prefill=gpu,
            load_format="safetensors",
            disable_log_stats=True,
        )

    def generate(self, requests: Sequence[Generate]) -> list[Text]:
        """See sampling.Engine."""
        from vllm import SamplingParams

        params = [
            SamplingParams(
                max_tokens=r.max_tokens,
                temperature=r.temperature,
                top_p=r.top_p,
                seed=r.seed if r.temperature else None,
                stop_token_ids=list(self.chat.ends),
            )
            for r in requests
        ]
        outputs = [output.outputs[0] for output in self._run(requests, params)]
        return [
            Text(
                text=self.chat.decode(o.token_ids),
                tokens=len(o.token_ids),
                finish="stop" if o.finish_reason == "stop" else "length",
            )
            for o in outputs
        ]

    def choose(self, requests: Sequence[Choose]) -> list[list[float]]:
        """See sampling.Engine."""
        from vllm import SamplingParams

        params = [SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=list(r.options)) for r in requests]
        return [
            [float(output.outputs[0].logprobs[0][option].logprob) for option in request.options]
            for request, output in zip(requests, self._run(requests, params), strict=True)
        ]

    def weigh(self, requests: Sequence[Weigh]) -> list[list[float]]:
        """See sampling.Engine."""
        from vllm import SamplingParams

        params = [SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)] * len(requests)
        whole = [Generate((*r.prompt, *r.continuation), 1, 0, 1, 0, 0) for r in requests]
        return [
            [
                float(output.prompt_logprobs[len(request.prompt) + place][token].logprob)
                for place, token in enumerate(request.continuation)
            ]
            for request, output in zip(requests, self._run(whole, params), strict=True)
        ]

    def _run(self, requests: Sequence[Generate | Choose], params: Sequence[Any]) -> list[Any]:
        room = self._llm.model_config.max_model_len
        if (longest := max(len(r.prompt) + p.max_tokens for r, p in zip(requests, params, strict=True))) > room:
            raise BadInput(
                f"{self.folder}: a request needs {longest} tokens and vLLM's cache holds {room}; raise"
                " VLLM_CPU_KVCACHE_SPACE (GiB) on a CPU, or lower max_tokens in params.yaml"
            )
        prompts = [{"prompt_token_ids": list(request.prompt)} for request in requests]
        return list(self._llm.generate(prompts, list(params), use_tqdm=False))
