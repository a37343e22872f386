"""Generated trajectories are drawn, filmed and played, by the command that people use."""

from pathlib import Path

import pytest
from PIL import Image

from data_collection.report.page import Report
from safe_policy_core.data.split_safe import split_safe
from safe_policy_core.errors import DatasetError
from safe_policy_core.methods.dspo.pipeline import DspoRun
from sim.collectors.collect import collect
from sim.collectors.tasks import TASKS
from tests.core.dspo_rig import CONFIG

EPISODES, DEMONSTRATIONS = 16, 4


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    collect(TASKS["SafeReach"], EPISODES, 0, folder / "data.hdf5")
    split_safe((folder / "data.hdf5",), folder / "split", demonstrations=DEMONSTRATIONS, cost_limit=1.0)
    return folder / "split"


def test_the_report_plays_what_a_run_generated(split: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    DspoRun(split, run, CONFIG, 0).run(["discriminator", "label", "diffusion", "generate"])
    found = Report(run, generated=split).run()
    generated, recorded = found["generated"], found["recorded"]
    assert generated["trajectories"] == CONFIG.diffusion.generated
    assert recorded["trajectories"] == DEMONSTRATIONS
    assert recorded["reached"] == 1
    # Four steps of training know nothing of the dynamics; what was recorded leads where it led.
    assert recorded["mean_error"] < 0.002 < generated["mean_error"]
    assert found["picture"] == str(run / "generated.png")
    with Image.open(found["picture"]) as picture:
        assert picture.size[0] > 1000
    with Image.open(found["film"]) as film:
        assert film.size == (320, 240)
        assert film.n_frames > CONFIG.diffusion.generated


def test_without_generated_trajectories_it_says_how_to_make_them(split: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no generated trajectories; run `safe-policy dspo generate`"):
        Report(tmp_path, generated=split).run()
