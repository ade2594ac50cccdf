"""One thread for torch: what is trained here is small, and the machine is shared. A state from a few choices."""

import torch

from learners.online import Online

torch.set_num_threads(1)


def learned(*choices: tuple[str, str]) -> Online:
    """A state in which each user chose those items, parted by blanks."""
    online = Online()
    for user, items in choices:
        for item in items.split():
            online.learn_one(user, item, 0.0)
    return online
