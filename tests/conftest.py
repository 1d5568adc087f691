import os

from hypothesis import settings

# A shared machine can pause a test for longer than hypothesis' deadline of 0.2 s.
settings.register_profile("mixln", deadline=None)
settings.load_profile("mixln")


def pytest_configure() -> None:
    # huggingface_hub reads the variable when it is imported, so it comes first.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()
