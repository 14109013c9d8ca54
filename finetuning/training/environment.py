"""What a process that trains must find in its environment before PyTorch is imported. Imports nothing."""

# PyTorch's threads wait for each other by spinning. Beside chat, where they do not have the cores to themselves, a
# step then takes ten times as long (SmolLM2, 4 x 50 tokens, 2 busy cores: 6 to 23 s; with this 1.0 to 1.4 s).
CHILD_ENVIRONMENT = {"OMP_WAIT_POLICY": "passive"}
