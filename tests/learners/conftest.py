"""One thread for torch: what is trained here is small, and the machine is shared."""

import torch

torch.set_num_threads(1)
