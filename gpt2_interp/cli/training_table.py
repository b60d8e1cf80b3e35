"""What becomes of each flag of Hugging Face's TrainingArguments: it works, is refused, or is left to the library.

All fields of the installed library stand here; a test compares them, so that a new version shows what nobody has looked
at. Another test starts each flag that works with a value that is not its default.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gpt2_interp.flags import Decides

WHOLE_MODEL = "a snapshot needs the whole model in one process; torchrun alone trains on several devices"
_EVALUATION = "this pipeline's own evaluation computes the loss of each token and keeps no other output"
_NO_COLUMNS = "training rows are this pipeline's own examples, which have no columns"
_NO_UPLOAD = "a run writes local folders; upload model_outputs/<run_name>/best_model when it is finished"
_NO_LIGER = "Liger has no kernels for GPT-2"
_ALL_STAGES = "a run trains, evaluates and scores its test rows, always"


@dataclass(frozen=True)
class Entry:
    """One flag.

    why: for a refused flag, what to do instead or why it can't work; for one left to the library, why no test has it.
    least: the smallest number that it may be; with `above`, every number that it may be is larger.
    """

    fate: Literal["works", "refused", "left"]
    why: str = ""
    decides: Decides = "learning"
    least: float | None = None
    above: bool = False


def _works(decides: Decides = "learning", least: float | None = None, above: bool = False) -> Entry:
    return Entry("works", decides=decides, least=least, above=above)


def _refused(why: str, decides: Decides = "learning") -> Entry:
    return Entry("refused", why, decides)


def _left(why: str, decides: Decides = "nothing") -> Entry:
    return Entry("left", why, decides)


_TRACKIO = "needs an account of trackio"

TABLE: dict[str, Entry] = {
    "output_dir": _refused("checkpoints go to checkpoints/<run_name>; give --run_name", "nothing"),
    # how long, in which batches
    "per_device_train_batch_size": _works("record", least=1),
    "num_train_epochs": _works(least=0, above=True),
    "max_steps": _works(),
    "gradient_accumulation_steps": _works("record", least=1),
    "auto_find_batch_size": _refused("the batch follows from the device's memory; see --effective_batch_size"),
    # the step
    "learning_rate": _works(least=0, above=True),
    "lr_scheduler_type": _works(),
    "lr_scheduler_kwargs": _works(),
    "warmup_steps": _works(least=0),
    "optim": _works(),
    "optim_args": _works(),
    "optim_target_modules": _refused("only GaLore and APOLLO read it, which need nn.Linear, and GPT-2's are Conv1D"),
    "weight_decay": _works(least=0),
    "adam_beta1": _works(least=0),
    "adam_beta2": _works(least=0),
    "adam_epsilon": _works(least=0),
    "max_grad_norm": _works(least=0),
    "average_tokens_across_devices": _refused("the loss is always averaged over the tokens of all devices"),
    "label_smoothing_factor": _refused(
        "the loss over packed batches, which this pipeline computes itself, has no smoothing"
    ),  # fmt: skip
    "neftune_noise_alpha": _refused(
        "its noise is scaled by the length of a row, and batches are packed into one row here"
    ),  # fmt: skip
    # precision, memory, speed
    "bf16": _refused("give --precision bf16", "nothing"),
    "fp16": _refused("give --precision fp16", "nothing"),
    "bf16_full_eval": _refused(_EVALUATION + "; its precision is --precision"),
    "fp16_full_eval": _refused(_EVALUATION + "; its precision is --precision"),
    "tf32": _left("needs a GPU of NVIDIA's Ampere or newer", "learning"),
    "activation_checkpointing": _works(),
    "activation_checkpointing_kwargs": _works(),
    "gradient_checkpointing": _works(),
    "gradient_checkpointing_kwargs": _works(),
    "torch_compile": _works(),
    "torch_compile_backend": _works(),
    "torch_compile_mode": _works(),
    "use_liger_kernel": _refused(_NO_LIGER),
    "liger_kernel_config": _refused(_NO_LIGER),
    "use_cache": _works(),
    "torch_empty_cache_steps": _works("nothing", least=1),
    "full_determinism": _works(),
    "use_cpu": _works(),
    # log and trackers
    "logging_strategy": _works("record"),
    "logging_steps": _works("record", least=0, above=True),
    "logging_first_step": _works("nothing"),
    "log_on_each_node": _left("needs several machines"),
    "logging_nan_inf_filter": _refused("a loss that is not finite stops the run and names its rows", "nothing"),
    "include_num_input_tokens_seen": _works("record"),
    "log_level": _works("nothing"),
    "log_level_replica": _works("nothing"),
    "disable_tqdm": _works("nothing"),
    "report_to": _works("nothing"),
    "run_name": _works("nothing"),
    "project": _left(_TRACKIO),
    "trackio_space_id": _left(_TRACKIO),
    "trackio_bucket_id": _left(_TRACKIO),
    "trackio_static_space_id": _left(_TRACKIO),
    "debug": _refused("a step whose loss or gradient is not finite stops the run and names its rows anyway", "record"),
    "skip_memory_metrics": _refused(
        "the summary that would hold them is not logged: after --resume it would be of the last part alone", "nothing"
    ),  # fmt: skip
    # evaluation
    "eval_strategy": _refused("each checkpoint is evaluated; give --save_strategy"),
    "eval_steps": _refused("each checkpoint is evaluated; give --save_steps"),
    "eval_delay": _refused("each checkpoint is evaluated, so that best_model/ is the best of all"),
    "per_device_eval_batch_size": _works("record", least=1),
    "prediction_loss_only": _refused(_EVALUATION),
    "eval_on_start": _works(),
    "eval_do_concat_batches": _refused(_EVALUATION),
    "eval_use_gather_object": _refused(_EVALUATION),
    "eval_accumulation_steps": _refused(_EVALUATION),
    "include_for_metrics": _refused(_EVALUATION),
    "batch_eval_metrics": _refused(_EVALUATION),
    "label_names": _refused(_EVALUATION),
    "metric_for_best_model": _works(),
    "greater_is_better": _works(),
    "load_best_model_at_end": _refused("best_model/ and final_model/ are both kept"),
    # checkpoints
    "save_strategy": _works(),
    "save_steps": _works(least=0, above=True),
    "save_total_limit": _works("nothing", least=1),
    "save_only_model": _refused("a checkpoint holds all that --resume needs; give --save_total_limit to keep fewer"),
    "save_on_each_node": _refused("the first process alone writes"),
    "enable_jit_checkpoint": _refused("SIGTERM always saves a checkpoint"),
    "resume_from_checkpoint": _refused("--resume finds the newest checkpoint of the run", "nothing"),
    "ignore_data_skip": _refused("a resumed run goes on with the batches that come next"),
    "restore_callback_states_from_checkpoint": _refused("a resumed run always restores them", "nothing"),
    "push_to_hub": _refused(_NO_UPLOAD, "nothing"),
    "hub_token": _refused(_NO_UPLOAD, "nothing"),
    "hub_private_repo": _refused(_NO_UPLOAD, "nothing"),
    "hub_model_id": _refused(_NO_UPLOAD, "nothing"),
    "hub_strategy": _refused(_NO_UPLOAD, "nothing"),
    "hub_always_push": _refused(_NO_UPLOAD, "nothing"),
    "hub_revision": _refused(_NO_UPLOAD, "nothing"),
    # chance and the order of rows
    "seed": _works(least=0),
    "data_seed": _works(least=0),
    "train_sampling_strategy": _works(),
    "dataloader_drop_last": _works(),
    "dataloader_num_workers": _works("nothing", least=0),
    "dataloader_pin_memory": _works("nothing"),
    "dataloader_persistent_workers": _works("nothing"),
    "dataloader_prefetch_factor": _works("nothing", least=1),
    "dataloader_multiprocessing_context": _works("nothing"),
    "dataloader_in_order": _refused("a resumed run must meet its batches in the same order"),
    "remove_unused_columns": _refused(_NO_COLUMNS),
    "length_column_name": _refused(_NO_COLUMNS),
    # several processes
    "accelerator_config": _refused(
        "how rows are shared among processes is decided here, so that several learn what one would"
    ),  # fmt: skip
    "parallelism_config": _refused(WHOLE_MODEL),
    "ddp_find_unused_parameters": _works(),
    "ddp_bucket_cap_mb": _works(least=1),
    "ddp_broadcast_buffers": _works(),
    "ddp_static_graph": _refused("with it, torch can't go backward through accumulated batches"),
    "ddp_backend": _works("nothing"),
    "ddp_timeout": _works("nothing", least=1),
    "fsdp": _refused(WHOLE_MODEL),
    "fsdp_config": _refused(WHOLE_MODEL),
    "deepspeed": _refused(WHOLE_MODEL),
    "local_rank": _refused("torchrun tells each process its rank in the environment; start with torchrun", "nothing"),
    # what a script of Hugging Face's would do with them
    "do_train": _refused(_ALL_STAGES, "nothing"),
    "do_eval": _refused(_ALL_STAGES, "nothing"),
    "do_predict": _refused(_ALL_STAGES, "nothing"),
}


def refusals() -> Iterator[tuple[str, str]]:
    """The name of each refused flag, and why."""
    return ((name, entry.why) for name, entry in TABLE.items() if entry.fate == "refused")
