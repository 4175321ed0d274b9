"""What an update minimises: the loss of some rows, from one forward through the team's policy.

The loss of an agent is a sum over its action tokens divided by their number in the whole minibatch, over all
processes: never by turn or by length, so no reply counts less for being long. Agents share no parameter, so the sum
of their losses trains each as if it were alone.

Axes in names: R rows, T positions, N action tokens, J turns of all rows (flat), K turns of one row, F features of a
critic.
"""

from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from marl_coop.policy.routed_lora import spans_of
from marl_coop.policy.team import TeamPolicy
from marl_coop.ppo import losses
from marl_coop.ppo.batch import SeatSample, collate
from marl_coop.ppo.config import MultiAgentPPOConfig
from marl_coop.ppo.importance import add_gap
from marl_coop.ppo.metrics import MeanMetrics


class Objective:
    """The loss of a micro-batch; calling it runs the forward.

    Args:
        policy: base, adapters and critics.
        args: see `MultiAgentPPOConfig`.
        accelerator: its processes share a minibatch.
        metrics: takes what is measured beside the loss.
        pad: any token id.

    `fresh` is to be true as long as the adapters are those that sampled.
    """

    def __init__(
        self, policy: TeamPolicy, args: MultiAgentPPOConfig, accelerator: Accelerator, metrics: MeanMetrics, pad: int
    ):
        self.policy, self.args, self.accelerator, self.metrics, self.pad = policy, args, accelerator, metrics, pad
        self.fresh = False

    def __call__(self, model, rows: Sequence[SeatSample], counts: Mapping[str, tuple[float, float]]) -> Tensor:
        """Loss of a micro-batch.

        Args:
            model: the team's policy, or what accelerate has put around it.
            rows: sorted by adapter.
            counts: action tokens and turns that count, by adapter, of the whole minibatch that the rows are a part of.
        """
        if not rows:
            return self._dummy_loss(model)
        args, device = self.args, self.accelerator.device
        batch = collate(rows, self.pad, device, args.padding_free)
        join = lambda name: torch.cat([getattr(row, name) for row in rows]).to(device)  # noqa: E731
        trainable_J = torch.cat([torch.full((len(r.trace.turns),), float(r.trainable)) for r in rows]).to(device)
        features = {}
        if args.has_critic:
            features_JF, returns_J, old_values_J = join("features_KF"), join("returns_K"), join("values_K")
            features = {adapter: features_JF[turns] for adapter, turns in batch.turns.items()}
        scores, values = model(
            features,
            spans=batch.spans,
            temperature=args.temperature,
            **batch.scored,
        )
        sampler_N = batch.sampler_logprobs_N
        old_N = sampler_N if args.importance == "sampler" else join("old_logprobs_N")
        policy_N, clipped_N = losses.policy_loss(
            scores.logprobs_N, old_N, join("advantages_K")[batch.turn_N], args.clip_low, args.clip_high
        )
        if args.importance == "truncated":
            policy_N = policy_N * losses.importance_weights(old_N, sampler_N)
        measured = {
            "policy_loss": policy_N,
            "clip_fraction": clipped_N.float(),
            "entropy": scores.entropy_N,
            "approx_kl": losses.approx_kl(scores.logprobs_N, old_N),
            "ratio": (scores.logprobs_N - old_N).exp(),
        }
        token_loss_N = policy_N
        if args.entropy_coef:
            token_loss_N = token_loss_N - args.entropy_coef * scores.entropy_N
        if args.kl_coef:
            measured["kl_to_reference"] = losses.k3_kl(scores.logprobs_N, join("reference_N"))
            token_loss_N = token_loss_N + args.kl_coef * measured["kl_to_reference"]
        loss = self._zero_loss([adapter for adapter in self.policy.adapters if adapter not in batch.tokens])
        for adapter, tokens in batch.tokens.items():
            turns = batch.turns[adapter]
            tokens_total, turns_total = (max(1.0, count) for count in counts[adapter])
            trainable_N = trainable_J[batch.turn_N][tokens]
            loss = loss + (token_loss_N[tokens] * trainable_N).sum() / tokens_total
            if self.fresh and args.importance == "sampler":  # else it was measured before learning
                counted_N = trainable_N > 0
                own_N = scores.logprobs_N[tokens].detach()
                add_gap(self.metrics, adapter, own_N[counted_N], sampler_N[tokens][counted_N])
            for name, values_N in measured.items():
                mean = losses.masked_mean(values_N[tokens].detach(), trainable_N)
                self.metrics.add(f"{adapter}/{name}", float(mean), cases=float(trainable_N.sum()))
            if adapter in values:
                value_J = losses.value_loss(
                    values[adapter], old_values_J[turns], returns_J[turns], args.cliprange_value
                )
                loss = loss + args.vf_coef * (value_J * trainable_J[turns]).sum() / turns_total
                mean = losses.masked_mean(value_J.detach(), trainable_J[turns])
                self.metrics.add(f"{adapter}/value_loss", float(mean), cases=float(trainable_J[turns].sum()))
        return loss * self.accelerator.num_processes  # DDP takes the mean over processes; the loss is a global sum

    def _dummy_loss(self, model) -> Tensor:
        """The loss of a micro-batch in which nobody learns: one token goes forward and backward, in step with the other
        processes, and teaches nothing."""
        ids_RT = torch.full((1, 2), self.pad, device=self.accelerator.device)
        scores, _ = model(
            {},
            spans=spans_of(self.policy.adapters[:1]),
            input_ids_RT=ids_RT,
            told={"attention_mask": torch.ones_like(ids_RT)},
            rows_N=ids_RT.new_tensor([0]),
            columns_N=ids_RT.new_tensor([1]),
            temperature=self.args.temperature,
        )
        return 0.0 * scores.logprobs_N.sum() + self._zero_loss(self.policy.adapters)

    def _zero_loss(self, adapters: Sequence[str]) -> Tensor:
        """0, with a gradient of 0 for the adapters that have no row here: processes exchange every gradient."""
        zeros = [0.0 * parameter.sum() for adapter in adapters for parameter in self.policy.trained_by(adapter)]
        return torch.stack(zeros).sum() if zeros else torch.zeros((), device=self.accelerator.device)
