import copy

import pytest
import torch

from gpt2_interp.data.examples import collate
from gpt2_interp.inside.interventions import heads_changed, read, states_after
from gpt2_interp.inside.losses import final_states, undisturbed
from gpt2_interp.inside.observation import measuring
from gpt2_interp.model.anatomy import find_gpt2
from tests.inside.test_losses import EXAMPLES, N_HEAD, N_LAYER, tiny, tiny_lora

IDS = collate(EXAMPLES, 0)["input_ids"]
OTHER_IDS = IDS.flip(0)  # other texts of the same length
MODELS = {"full": lambda: tiny().eval(), "lora": lambda: find_gpt2(tiny_lora())}


def positions(first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(row, position) of every position from `first` on."""
    row, position = torch.ones(len(IDS), IDS.shape[1] - first).nonzero(as_tuple=True)
    return row, position + first


def everywhere(final: torch.Tensor, first: int = 0) -> torch.Tensor:
    return final[positions(first)]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_reading_equals_hugging_faces_eager_attention(make):
    gpt2 = make()
    with measuring(gpt2), undisturbed(gpt2):
        reading = read(gpt2, IDS)
    gpt2.set_attn_implementation("eager")
    with torch.no_grad():
        slow = gpt2.transformer(IDS, output_attentions=True, output_hidden_states=True)
    for layer in range(N_LAYER):
        torch.testing.assert_close(reading.pattern(layer), slow.attentions[layer], atol=1e-5, rtol=0)
        torch.testing.assert_close(reading.pattern(layer, 60), slow.attentions[layer][:, :, 60:], atol=1e-5, rtol=0)
        torch.testing.assert_close(reading.entries[layer], slow.hidden_states[layer])
        together = slow.attentions[layer] @ reading.values(layer)
        torch.testing.assert_close(reading.outputs(layer), together, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reading.final, slow.last_hidden_state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("first", [0, 50])
def test_a_models_own_pattern_and_values_change_nothing(make, first):
    gpt2, which = make(), torch.arange(len(IDS))
    with measuring(gpt2), undisturbed(gpt2):
        reading = read(gpt2, IDS)
        for layer in range(N_LAYER):
            own = reading.pattern(layer, first) @ reading.values(layer)
            again = states_after(gpt2, reading, layer, which, own.transpose(1, 2).flatten(2), positions(first))
            torch.testing.assert_close(again, everywhere(reading.final, first), atol=1e-5, rtol=1e-5)
        with heads_changed(gpt2, lambda layer, values, z: reading.pattern(layer) @ values):
            torch.testing.assert_close(final_states(gpt2, IDS), reading.final, atol=1e-5, rtol=0)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_one_head_of_another_text(make, implementation):
    """Pattern, values or output of one head, from another text, at the last positions: as with hooks in eager
    attention, one example at a time without padding."""
    gpt2, first = make(), 60
    gpt2.set_attn_implementation(implementation)
    with undisturbed(gpt2):
        own, other = read(gpt2, IDS), read(gpt2, OTHER_IDS)
        for layer in range(N_LAYER):
            changes = {
                "pattern": other.pattern(layer, first) @ own.values(layer),
                "values": own.pattern(layer, first) @ other.values(layer),
                "output": other.outputs(layer, first),
            }
            for head in range(N_HEAD):
                for name, new in changes.items():
                    z = own.outputs(layer, first).clone()
                    z[:, head] = new[:, head]
                    which = torch.tensor([1, 3])  # rows of the reading in any order and number
                    row, position = torch.tensor([0, 0, 1]), torch.tensor([65, 80, 79])
                    fast = states_after(gpt2, own, layer, which, z[which].transpose(1, 2).flatten(2), (row, position))

                    def change(module, args, z=z, head=head):
                        new = args[0].unflatten(-1, (N_HEAD, -1)).clone()
                        new[:, first:, head] = z[:, head]
                        return (new.flatten(2),)

                    hook = gpt2.transformer.h[layer].attn.c_proj.register_forward_pre_hook(change)
                    slow = gpt2.transformer(IDS).last_hidden_state
                    hook.remove()
                    torch.testing.assert_close(
                        fast, slow[which[row], position], atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
                    )
                    assert (slow - own.final).abs().max() > 1e-3  # there is something to see


def test_all_heads_changed_are_the_other_run():
    """Where two models differ in their queries, keys and values alone, one with all patterns and values of the other is
    the other."""
    gpt2 = tiny().eval()
    changed = copy.deepcopy(gpt2)
    with torch.no_grad():
        for block in changed.transformer.h:
            block.attn.c_attn.weight += 0.3 * torch.randn(block.attn.c_attn.weight.shape)
    with undisturbed(gpt2):
        own, other = read(gpt2, IDS), read(changed, IDS)
        assert (own.final - other.final).abs().max() > 0.1
        with heads_changed(gpt2, lambda layer, values, z: other.pattern(layer) @ other.values(layer)):
            torch.testing.assert_close(final_states(gpt2, IDS), other.final, atol=1e-5, rtol=1e-5)
        with heads_changed(changed, lambda layer, values, z: own.outputs(layer)):
            torch.testing.assert_close(final_states(changed, IDS), own.final, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(final_states(gpt2, IDS), own.final)  # nothing is left behind
