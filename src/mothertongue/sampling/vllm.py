"""vLLM: sampling and log-probabilities, on a GPU or with vLLM's CPU build."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mothertongue import hardware
from mothertongue.chat import Chat
from mothertongue.errors import BadInput
from mothertongue.params import Dtype
from mothertongue.sampling import Completion, Generation, LogLikelihood, NextTokenLogprobs


class VLLM:
    """vLLM's offline engine on one model folder."""

    def __init__(self, folder: Path, dtype: Dtype, chat: Chat) -> None:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        # GiB, which is filled with zeros in some seconds
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        # The engine in this process: in a second one, the order in which requests arrive would depend on timing.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from vllm import LLM

        logging.getLogger("vllm").setLevel(logging.ERROR)
        gpu = hardware.has_gpu()
        self.folder, self.chat = folder, chat
        # A kill loses one batch, and the engine idles at its end: small on a CPU, which gains nothing from more.
        self.batch = 2048 if gpu else 96
        self._llm: Any = LLM(
            model=str(folder),
            dtype=dtype,
            max_model_len=-1,  # the model's own, or as much as fits the memory for its cache
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

    def generate(self, requests: Sequence[Generation]) -> list[Completion]:
        """See sampling.Engine."""
        from vllm import SamplingParams

        params = [
            SamplingParams(
                max_tokens=r.max_tokens,
                temperature=r.temperature,
                top_p=r.top_p,
                seed=r.seed if r.temperature else None,
                stop_token_ids=list(self.chat.eos_token_ids),
            )
            for r in requests
        ]
        outputs = [output.outputs[0] for output in self._run(requests, params)]
        return [
            Completion(
                text=self.chat.decode(o.token_ids),
                tokens=len(o.token_ids),
                finish="stop" if o.finish_reason == "stop" else "length",
            )
            for o in outputs
        ]

    def next_token_logprobs(self, requests: Sequence[NextTokenLogprobs]) -> list[list[float]]:
        """See sampling.Engine."""
        from vllm import SamplingParams

        params = [SamplingParams(max_tokens=1, temperature=0, logprob_token_ids=list(r.options)) for r in requests]
        return [
            [float(output.outputs[0].logprobs[0][option].logprob) for option in request.options]
            for request, output in zip(requests, self._run(requests, params), strict=True)
        ]

    def log_likelihood(self, requests: Sequence[LogLikelihood]) -> list[list[float]]:
        """See sampling.Engine."""
        from vllm import SamplingParams

        params = [SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)] * len(requests)
        whole = [Generation((*r.prompt, *r.continuation), 1, 0, 1, 0, 0) for r in requests]
        return [
            [
                float(output.prompt_logprobs[len(request.prompt) + place][token].logprob)
                for place, token in enumerate(request.continuation)
            ]
            for request, output in zip(requests, self._run(whole, params), strict=True)
        ]

    def _run(self, requests: Sequence[Generation | NextTokenLogprobs], params: Sequence[Any]) -> list[Any]:
        limit = self._llm.model_config.max_model_len
        if (longest := max(len(r.prompt) + p.max_tokens for r, p in zip(requests, params, strict=True))) > limit:
            raise BadInput(
                f"{self.folder}: a request needs {longest} tokens and vLLM's cache has {limit}; raise"
                " VLLM_CPU_KVCACHE_SPACE (GiB) on a CPU, or lower max_tokens in params.yaml"
            )
        prompts = [{"prompt_token_ids": list(request.prompt)} for request in requests]
        return list(self._llm.generate(prompts, list(params), use_tqdm=False))
