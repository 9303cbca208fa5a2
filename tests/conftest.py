import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Tests write their logs into a temporary folder."""
    monkeypatch.chdir(tmp_path)
