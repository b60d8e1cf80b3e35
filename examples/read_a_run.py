# %% [markdown]
# # From a run to a figure of your own
#
# `open_run` reads what a run has measured: labelled arrays of xarray, without torch and without the model.
# First make a run: `./run_experiment.sh quickstart`. `docs/read_a_run.md` explains what a run holds.

# %%
import matplotlib.pyplot as plt

from gpt2_interp import open_run

run = open_run("quickstart", root=".")
print(run)
print("measures:", ", ".join(run))

# %% [markdown]
# One measure over all snapshots. Its dimensions have names, its coordinates are step numbers, ids of the probes, layers
# and heads, and its attributes say what it is.

# %%
entropy = run["attn_entropy"]
print(entropy.dims, entropy.shape)
print(entropy.attrs["meaning"], "Unit:", entropy.attrs["units"])

# %% [markdown]
# Choose by label, average by name. Region Q holds the positions that predict a token of the target. Probes of one
# cluster are alike, so average within clusters first.

# %%
by_cluster = entropy.sel(region="Q").groupby("example_cluster").mean()
change = by_cluster.isel(step=-1) - by_cluster.isel(step=0)  # [cluster, layer, head]
mean = change.mean("example_cluster")
error = change.std("example_cluster", ddof=1) / change.sizes["example_cluster"] ** 0.5
layer, head = (int(i) for i in abs(mean / error).argmax(["layer", "head"]).values())
print(f"most clearly changed: layer {layer}, head {head}, by {mean[layer, head]:.2f} +- {error[layer, head]:.2f} bits")

# %% [markdown]
# One snapshot alone, and only what is named: two measures of the last step that have one value a probe.

# %%
last = run.snapshot(run.steps[-1], ["probe_loss", "context_gain"])
print(last.to_dataframe().groupby("example_cluster")[["probe_loss", "context_gain"]].mean().round(2))

# %% [markdown]
# The figure: that head over time, with the spread over clusters, beside the loss of the same probes.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
of_head = by_cluster.sel(layer=layer, head=head)
low, high = of_head.quantile([0.25, 0.75], "example_cluster")
left.fill_between(of_head.step, low, high, alpha=0.25, label="middle half of the clusters")
left.plot(of_head.step, of_head.mean("example_cluster"), label="mean")
left.set(xlabel="step", ylabel=f"attention entropy ({entropy.attrs['units']})", title=f"layer {layer}, head {head}")
left.legend()
loss = run["probe_loss"]
right.plot(loss.step, loss.mean("example"))
right.set(xlabel="step", ylabel=loss.attrs["units"], title="loss on the probes")
figure.savefig("my_figure.png", dpi=150)

# %% [markdown]
# A changed head is not yet a finding: `claims.json`, which `visualize_metrics.py` writes, has the tests.

# %%
found = [one for one in run.claims.get("changes", []) if one["measure"] == "attn_sink" and one["beyond_noise"]]
for one in found:
    print(one["unit"], f"{one['change']:+.3f}, {one['low']:+.3f} to {one['high']:+.3f}", ", ".join(one["words"]))
