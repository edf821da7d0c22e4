"""The numbers of TRL 1.12.0 on the same tokens, wherever both define a thing the same way.

TRL's own trainers run on a tiny model; what they computed is compared with what chatrlhf computes
from the same tensors, and one whole PPO step with a whole PPO step. The definitions differ here:

=========================  ============================================  ==========================
what                       TRL 1.12.0                                    chatrlhf
=========================  ============================================  ==========================
where a reply ends         one state after the end token: its value is   the end token is the last;
                           kept and trained, the score is given there    the score is given there
no end token               a penalty is subtracted from the score        the score is replaced
which tokens are padding   those equal to the pad token; a pad token     an explicit mask
                           that is drawn ends the reply
control tokens             sampled like others                           probability 0
padding                    log-probability 1.0, and it counts in         zero, and counts nowhere
                           ``approxkl_avg``, ``entropy_avg``, ``ratio``
old log-probabilities      from the logits of generation                 from the update's path
``approx_kl``              k2                                            k3
``objective/entropy``      minus the summed log-probability              the entropy of each token
micro-batches              count alike                                   count by their tokens
KL in the reward           k1 or k3, fixed coefficient                   k1, fixed or adaptive
rewards                    may be whitened                               never
gradient norm, entropy     not clipped, logged only                      clipped, a loss term
value head                 last hidden state, no bias                    pooled states and bias
temperature                T + 1e-7                                      T
=========================  ============================================  ==========================
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("trl", reason="TRL is not installed; pip install '.[dev]' installs it")

import trl_twin as twin
from datasets import Dataset
from peft import get_peft_model
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.experimental.ppo.ppo_trainer import masked_mean as trl_masked_mean
from trl.experimental.ppo.ppo_trainer import masked_var as trl_masked_var
from trl.experimental.ppo.ppo_trainer import masked_whiten as trl_masked_whiten
from trl.trainer.utils import entropy_from_logits

from chatrlhf.maths.advantages import generalised_advantages, token_rewards
from chatrlhf.maths.logprobs import token_statistics
from chatrlhf.maths.masked import masked_mean, masked_variance, masked_whiten
from chatrlhf.maths.ppo_loss import (
    clipped_policy_loss,
    clipped_value_loss,
    kl_k1,
    kl_k2,
    kl_k3,
)
from chatrlhf.maths.ranking_loss import plackett_luce_losses
from chatrlhf.models.policy import Policy
from chatrlhf.settings import PpoSettings, SftSettings
from chatrlhf.training import ppo
from chatrlhf.training.batches import TokenSequence, make_batch
from chatrlhf.training.sft import fit_demonstrations, mean_token_loss

EPOCHS, TEMPERATURE, BETA = 3, 0.7, 0.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return twin.write_twin_model(tmp_path_factory.mktemp("trl") / "gemma")


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(5)
    return [
        torch.randint(64, 310, (3 + row % 4,), generator=generator).tolist() for row in range(8)
    ]


@pytest.fixture(scope="module")
def full(folder, prompts, tmp_path_factory):
    """Every reply has its full length: no end token is known."""
    return twin.run_pair(
        folder,
        prompts,
        tmp_path_factory.mktemp("full"),
        temperature=TEMPERATURE,
        kl_coef=BETA,
        num_ppo_epochs=EPOCHS,
    )


@pytest.fixture(scope="module")
def ending(folder, prompts, tmp_path_factory):
    """Most replies end early; k3, whitened rewards, and a penalty where the end is missing."""
    pair = twin.run_pair(
        folder,
        prompts,
        tmp_path_factory.mktemp("ending"),
        temperature=1.0,
        kl_coef=BETA,
        kl_estimator="k3",
        stop_token_id=twin.end_token(folder),
        missing_eos_penalty=1.0,
        whiten_rewards=True,
        num_ppo_epochs=2,
        gamma=0.9,
        lam=0.8,
    )
    ended = (pair.run.locals["responses"] == twin.end_token(folder)).any(-1)
    assert 0 < int(ended.sum()) < len(ended)
    return pair


@pytest.fixture(params=["full", "ending"])
def run(request):
    return request.getfixturevalue(request.param).run


def close(ours, theirs, tolerance=2e-5):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


# From tokens to log-probabilities


def ours_of(pair: twin.Pair, policy: Policy) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of the replies, (B, T) each."""
    batch = make_batch(pair.rollout.sequences, pad_token_id=0)
    with torch.no_grad():
        statistics = policy.token_statistics(
            batch.token_ids, batch.predicts_response, batch.targets, TEMPERATURE
        )
    rows = len(pair.rollout)
    return statistics.logprobs.view(rows, -1), statistics.entropies.view(rows, -1)


def test_log_probabilities_of_the_replies(full):
    logprobs, _ = ours_of(full, full.ours.policy)
    close(logprobs, full.run.locals["logprobs"])  # from the logits of generation
    update = full.run.updates[0].tensors
    close(logprobs[update["rows"]], update["new_logprobs"])


def test_log_probabilities_under_the_reference(full):
    with full.ours.policy.as_reference() as reference:
        logprobs, _ = ours_of(full, reference)
    close(logprobs, full.run.locals["ref_logprobs"])


def test_entropies(full):
    _, entropies = ours_of(full, full.ours.policy)
    logits, _, _ = full.run.log_softmaxes[2]  # after those of rollout and reference
    close(entropies[full.run.updates[0].tensors["rows"]], entropy_from_logits(logits))


def test_values(full):
    batch = make_batch(full.rollout.sequences, pad_token_id=0)
    with torch.no_grad():
        values = full.ours.critic.values(
            batch.token_ids, batch.is_response_token, batch.predicts_response
        )
    close(values.view(len(full.rollout), -1), full.run.locals["values"])


def test_log_softmax_of_given_logits(run):
    for logits, index, logprobs in run.log_softmaxes:
        flat = logits.reshape(-1, logits.shape[-1])
        # An identity as LM head turns hidden states into these very logits.
        ours = token_statistics(flat, torch.eye(flat.shape[1]), index.reshape(-1))
        close(ours.logprobs.view(index.shape), logprobs)
        close(ours.entropies.view(index.shape), entropy_from_logits(logits))


# From log-probabilities to advantages


def test_kl_estimates(full, ending):
    for run, estimate in ((full.run, kl_k1), (ending.run, kl_k3)):
        close(estimate(run.locals["logprobs"], run.locals["ref_logprobs"]), run.locals["kl"])
        assert float(run.locals["kl"].abs().max()) > 0.01
    k2 = [
        float(kl_k2(update.tensors["new_logprobs"], update.tensors["mb_logprobs"]).mean())
        for update in full.run.updates
    ]
    assert sum(k2) / len(k2) == pytest.approx(full.run.log["policy/approxkl_avg"], rel=1e-4)


def test_token_rewards(full):
    tensors = full.run.locals
    ours = token_rewards(
        tensors["scores"],
        tensors["logprobs"],
        tensors["ref_logprobs"],
        ~tensors["padding_mask_p1"],
        BETA,
    )
    close(ours, tensors["rewards"])


def test_the_score_is_given_at_the_last_state(ending):
    before, mask, _ = ending.run.whitenings[0]
    tensors = ending.run.locals
    scored = token_rewards(
        tensors["scores"], torch.zeros_like(before), torch.zeros_like(before), mask, BETA
    )
    close(scored - BETA * kl_k3(tensors["logprobs"], tensors["ref_logprobs"]), before)


@pytest.mark.parametrize(
    ("name", "discount", "gae_lambda"), [("full", 1, 0.95), ("ending", 0.9, 0.8)]
)
def test_advantages_and_returns(request, name, discount, gae_lambda):
    run = request.getfixturevalue(name).run
    tensors = run.locals
    # With the state after the end as a last state, TRL's recursion is ours.
    ours = generalised_advantages(
        tensors["rewards"], tensors["values"], ~tensors["padding_mask_p1"], discount, gae_lambda
    )
    advantages, _, _ = run.whitenings[-1]
    close(ours.advantages, advantages)
    close(ours.returns, tensors["returns"])


def test_whitened_advantages(run):
    advantages, mask, whitened = run.whitenings[-1]
    close(masked_whiten(advantages, mask), whitened * mask)
    close(masked_whiten(advantages, mask), run.updates[0].tensors["advantages"])


def test_masked_statistics():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(6, 9, generator=generator) * 3 + 1
    mask = torch.rand(6, 9, generator=generator) < 0.6
    close(masked_mean(values, mask), trl_masked_mean(values, mask))
    close(masked_variance(values, mask), trl_masked_var(values, mask))
    close(masked_whiten(values, mask), trl_masked_whiten(values, mask) * mask)


# The objective


def test_policy_loss_and_its_gradient(run):
    fractions = []
    for update in run.updates:
        kept = update.tensors
        is_response = ~kept["padding_mask"][kept["rows"]]
        logprobs = kept["new_logprobs"].requires_grad_()
        ours = clipped_policy_loss(
            logprobs, kept["mb_logprobs"], kept["mb_advantage"], is_response, 0.2
        )
        close(ours.loss, kept["pg_loss"])
        ours.loss.backward()
        close(logprobs.grad, update.gradients["new_logprobs"])
        fractions.append(float(ours.clip_fraction))
    assert fractions[0] == 0.0 < fractions[-1]  # from the second update on the clip acts
    assert sum(fractions) / len(fractions) == pytest.approx(run.log["policy/clipfrac_avg"])


def test_value_loss_and_its_gradient(run):
    fractions = []
    for update in run.updates:
        kept = update.tensors
        is_state = ~kept["padding_mask_p1"][kept["rows"]]
        values = kept["vpred"].requires_grad_()
        ours = clipped_value_loss(values, kept["mb_values"], kept["mb_return"], is_state, 0.2)
        close(ours.loss, kept["vf_loss"])
        (0.1 * ours.loss).backward()
        close(values.grad, update.gradients["vpred"])
        fractions.append(float(ours.clip_fraction))
    assert fractions[-1] > 0.0
    assert sum(fractions) / len(fractions) == pytest.approx(run.log["val/clipfrac_avg"])


# The whole step


@pytest.fixture(scope="module")
def step(full, folder):
    """Our iteration over the replies that TRL sampled, with the scores that it gave them."""
    settings = PpoSettings(
        learning_rate=twin.RATE,
        value_learning_rate=twin.RATE,
        iterations=8,
        minibatches=1,
        epochs=EPOCHS,
        max_new_tokens=10,
        temperature=TEMPERATURE,
        clip_range=0.2,
        value_clip_range=0.2,
        value_coefficient=0.1,
        kl_coefficient=BETA,
        kl_target=0.0,
        discount=1.0,
        gae_lambda=0.95,
        max_grad_norm=1e9,
        stop_kl=0.0,  # TRL makes all updates
    )
    ours = twin.our_models(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(ppo, "collect_rollout", lambda *args, **kwargs: full.rollout)
        trainer = ppo.PpoTrainer(
            ours.policy,
            ours.critic,
            lambda rollout: full.run.locals["scores"],
            settings,
            seed=0,
            micro_batch=len(full.rollout),
        )
        stats, _, _ = trainer.iteration(full.rollout.prompts)
    return stats, trainer


def test_a_whole_step_measures_the_same(full, step):
    stats, _ = step
    log = full.run.log
    assert stats.kl == pytest.approx(log["objective/kl"], rel=1e-4)
    assert stats.score == pytest.approx(log["objective/scores"], rel=1e-4)
    assert stats.reward == pytest.approx(log["objective/rlhf_reward"], rel=1e-4)
    assert stats.policy_loss == pytest.approx(log["loss/policy_avg"], rel=1e-4)
    assert stats.value_loss == pytest.approx(log["loss/value_avg"], rel=1e-4)
    assert stats.clip_fraction == pytest.approx(log["policy/clipfrac_avg"])
    assert stats.value_clip_fraction == pytest.approx(log["val/clipfrac_avg"])


def test_a_whole_step_leads_to_the_same_weights(full, step):
    _, trainer = step
    parts, _ = trainer.state()
    for part, theirs in (("policy", full.policy), ("value", full.value)):
        for key, tensor in parts[part].items():
            close(tensor, theirs[key].detach(), 1e-4)
    size = full.score.shape[1]
    close(parts["value_head"]["weight"][:size], full.score[0].detach(), 1e-4)
    assert not parts["value_head"]["weight"][size:].any()


# Reward model and SFT


def test_the_loss_of_two_replies_is_that_of_reward_trainer(folder, prompts, tmp_path, monkeypatch):
    monkeypatch.setenv("CI", "1")  # TRL reports each trainer that is made otherwise
    data = {"chosen_ids": prompts[:4], "rejected_ids": prompts[4:]}
    trainer = RewardTrainer(
        twin.scoring_model(folder, twin.REWARD_SEED),
        RewardConfig(str(tmp_path), bf16=False, use_cpu=True, report_to="none"),
        train_dataset=Dataset.from_dict(data),
        processing_class=twin.left_padding_tokenizer(folder),
    )
    batch = trainer.data_collator(list(trainer.train_dataset))
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    (gradient,) = torch.autograd.grad(loss, outputs.logits)

    scores = outputs.logits.detach().view(2, 4).T.contiguous().requires_grad_()  # (pairs, 2)
    ranks = torch.tensor([[1, 2]] * 4)
    is_reply = torch.ones_like(ranks, dtype=torch.bool)
    ours = plackett_luce_losses(scores, ranks, is_reply, torch.zeros(4)).mean()
    ours.backward()
    close(ours, loss)
    close(scores.grad, gradient.view(2, 4).T)


def test_the_loss_of_demonstrations_is_that_of_sft_trainer(folder, prompts, tmp_path, monkeypatch):
    monkeypatch.setenv("CI", "1")
    ours = twin.our_models(folder)
    pairs = list(zip(prompts[:4], prompts[4:], strict=True))
    model = get_peft_model(twin.causal_model(folder), twin.lora_config())
    ours.policy.base.lm_head.bias = None  # SFTTrainer's loss leaves the head's bias out
    lora = twin.lora_parameters(model, ours.bank.state_of("policy"))
    trainer = SFTTrainer(
        model,
        SFTConfig(
            str(tmp_path),
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to="none",
            completion_only_loss=True,
        ),
        train_dataset=Dataset.from_dict(
            {
                "input_ids": [prompt + reply for prompt, reply in pairs],
                "completion_mask": [[0] * len(p) + [1] * len(r) for p, r in pairs],
            }
        ),
        processing_class=twin.left_padding_tokenizer(folder),
    )
    batch = trainer.data_collator(list(trainer.train_dataset))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()

    sequences = [TokenSequence.of_reply(prompt, reply) for prompt, reply in pairs]
    assert mean_token_loss(ours.policy, sequences) == pytest.approx(loss.item(), rel=1e-5)
    settings = SftSettings(epochs=1, batch_size=4, max_grad_norm=1e9)
    fit_demonstrations(ours.policy, sequences, settings, seed=0)
    for key, parameter in zip(lora, ours.policy.parameters(), strict=True):
        close(parameter.grad, lora[key].grad)
