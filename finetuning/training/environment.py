"""What a process that trains must find in its environment, and how several are started. Imports nothing."""

# PyTorch's threads wait for each other by spinning. Beside chat, where they do not have the cores to themselves, a
# step then takes ten times as long (SmolLM2, 4 x 50 tokens, 2 busy cores: 6 to 23 s; with this 1.0 to 1.4 s).
CHILD_ENVIRONMENT = {"OMP_WAIT_POLICY": "passive"}
LAUNCHED = "--launched"


def launch_arguments(folder: str, *, processes: int) -> list[str]:
    """For the Python interpreter: so many processes on this machine, one for each GPU, that train one model."""
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    settled = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    return [*launcher, *settled, "--main_process_port", "0", "--module", "finetuning.training.child", folder, LAUNCHED]
