import numpy as np
import pytest

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.sequences import (
    PromptedStore,
    SequenceStore,
    augmented,
    cost_weights,
    frontier,
    returns_within,
    to_go,
)
from safe_policy_core.data.transitions import TransitionStore
from safe_policy_core.errors import DatasetError
from tests.core.corridor import corridor_dataset


def dataset(lengths: tuple[int, ...] = (5, 3, 4), seed: int = 0) -> DsrlDataset:
    """Observations are (episode, step), rewards and costs random fractions; the first episode terminates."""
    rng, rows = np.random.default_rng(seed), sum(lengths)
    observations = np.array([(episode, step) for episode, length in enumerate(lengths) for step in range(length)])
    ends, terminals, timeouts = np.cumsum(lengths) - 1, *np.zeros((2, rows), bool)
    terminals[ends[0]], timeouts[ends[1:]] = True, True
    return DsrlDataset.from_arrays(
        observations=observations, next_observations=observations + np.eye(2)[1], actions=rng.uniform(-1, 1, (rows, 1)),
        rewards=rng.random(rows), costs=rng.random(rows), terminals=terminals, timeouts=timeouts)


def test_windows_by_hand() -> None:
    data = dataset()
    batch = SequenceStore(data, 4).sample(200, 1, np.random.default_rng(0))
    for row in range(200):
        mask = batch["mask"][row]
        valid = int(mask.sum())
        assert mask.tolist() == [False] * (4 - valid) + [True] * valid  # padded on the left
        episode, last = batch["observations"][row, -1].astype(int)
        assert valid == min(4, last + 1)
        steps = np.arange(last + 1 - valid, last + 1)
        rows = data.starts[episode] + steps
        assert batch["time_steps"][row, mask].tolist() == steps.tolist()
        for name in ("observations", "actions", "rewards", "costs"):
            np.testing.assert_array_equal(batch[name][row, mask], getattr(data, name)[rows])
            assert not batch[name][row, ~mask].any()
        for name, received in (("returns_to_go", data.rewards), ("costs_to_go", data.costs)):
            expected = [received[start:data.starts[episode + 1]].sum() for start in rows]
            np.testing.assert_allclose(batch[name][row, mask], expected, atol=1e-5)  # fractions are kept
        assert batch["terminal"][row] == (episode == 0 and last == 4)


def test_prompted_windows_by_hand() -> None:
    """Half begin with 2 steps from anywhere in their own episode; behind them is the present, numbered on from 2."""
    data = dataset((5, 1, 4))
    batch = PromptedStore(data, 4, 2).sample(1000, 1, np.random.default_rng(0))
    prompts, plain, told = [], 0, []
    for row in range(1000):
        mask, times = batch["mask"][row], batch["time_steps"][row]
        valid = int(mask.sum())
        assert mask.tolist() == [False] * (4 - valid) + [True] * valid
        episode, last = batch["observations"][row, -1].astype(int)
        prompted = times[-1] == last + 2
        assert prompted or times[-1] == last
        plain += not prompted
        recent = min(last + 1, 2 if prompted else 4)
        steps, numbers = list(range(last + 1 - recent, last + 1)), list(range(times[-1] + 1 - recent, times[-1] + 1))
        if prompted:
            begin = int(batch["observations"][row, 4 - valid, 1])
            prompts.append((episode, begin, last))
            steps, numbers = [begin, begin + 1, *steps], [0, 1, *numbers]
        rows = data.starts[episode] + np.array(steps)
        assert valid == len(steps) and times[mask].tolist() == numbers
        for name in ("observations", "actions", "rewards", "costs"):
            np.testing.assert_array_equal(batch[name][row, mask], getattr(data, name)[rows])
            assert not batch[name][row, ~mask].any()
        expected = [data.costs[start:data.starts[episode + 1]].sum() for start in rows]
        np.testing.assert_allclose(batch["costs_to_go"][row, mask], expected, atol=1e-5)
        expected = [data.rewards[start:data.starts[episode + 1]].sum() for start in rows]
        if prompted:
            told.append(not np.allclose(batch["returns_to_go"][row, mask], to_go(data.rewards, data).mean()))
        if prompted and not told[-1]:
            expected = np.full(valid, to_go(data.rewards, data).mean())  # the prompt tells, not the return
        np.testing.assert_allclose(batch["returns_to_go"][row, mask], expected, atol=1e-5)
        assert not batch["returns_to_go"][row, ~mask].any()
        assert batch["terminal"][row] == (episode == 0 and last == 4)
    # Every whole prompt of every episode that has one, with every present; the episode of one step has none.
    assert set(prompts) == {(0, begin, last) for begin in range(4) for last in range(5)} | {
        (2, begin, last) for begin in range(3) for last in range(4)}
    assert 600 < plain < 730  # half of two thirds, and a third
    assert 0.4 < np.mean(told) < 0.6
    for steps in (0, 4):
        with pytest.raises(DatasetError, match="prompt"):
            PromptedStore(data, 4, steps)


def test_every_step_ends_windows_equally_often_within_its_episode() -> None:
    batch = SequenceStore(dataset((5, 5)), 2).sample(4000, 1, np.random.default_rng(0))
    last = batch["observations"][:, -1]
    counts = np.bincount((last[:, 0] * 5 + last[:, 1]).astype(int), minlength=10)
    assert counts.min() > 320 and counts.max() < 480  # 400 expected, deviation 19


def test_weights_decide_how_often_an_episode_is_drawn() -> None:
    batch = SequenceStore(dataset(), 2, np.array([0.0, 3.0, 1.0])).sample(2000, 1, np.random.default_rng(0))
    share = np.bincount(batch["observations"][:, -1, 0].astype(int), minlength=3) / 2000
    assert share == pytest.approx([0, 0.75, 0.25], abs=0.04)
    for wrong in (np.zeros(3), np.ones(2), np.array([1, -1, 1]), np.array([1, np.nan, 1])):
        with pytest.raises(DatasetError, match="weights"):
            SequenceStore(dataset(), 2, wrong)


def test_cheap_episodes_are_drawn_more_often_and_dear_ones_never() -> None:
    data = corridor_dataset(20)
    costs = data.cost_returns
    dearest = float(np.median(costs))
    weights = cost_weights(data, dearest)
    assert weights == pytest.approx([max(0.0, 1 - cost / dearest) for cost in costs])
    assert 0 < (weights == 0).sum() < len(data)
    below_all = cost_weights(data, costs.min() / 2)
    assert (below_all > 0).all() and (np.diff(below_all[np.argsort(costs)]) <= 0).all()


def test_frontier_by_search() -> None:
    data = corridor_dataset(40)
    for cost in (0.0, 3.5, 15.0, 100.0):
        affordable = np.flatnonzero(data.cost_returns <= cost)
        assert data.returns[frontier(data, np.array([cost]))[0]] == data.returns[affordable].max()
    with pytest.raises(DatasetError, match="less than that of any episode"):
        frontier(dataset(), np.array([0.0]))


def test_returns_within_costs_by_hand() -> None:
    """Quantiles of the affordable; an expensive episode of little return takes nothing from what is asked."""
    data = corridor_dataset(4)
    data.returns[:], data.cost_returns[:] = [2, 4, 1, 8], [0, 0, 5, 9]
    assert returns_within(data, np.array([0.0, 5.0, 9.0]), 0.5).tolist() == [3, 3, 3]  # medians 3, 2 and 3
    assert returns_within(data, np.array([0.0, 5.0, 9.0]), 1.0).tolist() == [4, 4, 8]


def test_augmentation_labels_only_infeasible_targets_and_never_above_the_frontier() -> None:
    """Algorithm 2: the imitated episode is affordable and the best of those; the label asks for more than the
    frontier gives at its cost, and for no more than the data's best return."""
    data = corridor_dataset(60)
    found = augmented(data, 0.5, np.random.default_rng(0))
    assert len(found.episode) == 30
    costs, returns = data.cost_returns[found.episode], data.returns[found.episode]
    kappa, rho = costs + found.cost_shift, returns + found.return_shift
    for index, episode in enumerate(found.episode):
        affordable = data.cost_returns <= kappa[index] + 1e-9
        assert data.cost_returns[episode] <= kappa[index] + 1e-9
        assert data.returns[episode] == data.returns[affordable].max()
        assert rho[index] >= data.returns[affordable].max()
    assert rho.max() <= data.returns.max() + 1e-9
    assert data.cost_returns.min() <= kappa.min() and kappa.max() <= data.cost_returns.max()


def test_relabelled_episodes_share_rows_and_shift_their_labels() -> None:
    """Eq. 12: every return- and cost-to-go is moved by the same number."""
    data = corridor_dataset(10)
    found = augmented(data, 0.4, np.random.default_rng(1))
    store = SequenceStore(data, 20, None, found)
    assert len(store) == 14
    first, last = data.starts[found.episode], data.starts[found.episode + 1] - 1
    plain = store.windows(first, last, np.zeros((2, 4), np.float32))
    shifted = store.windows(first, last, np.stack([found.return_shift, found.cost_shift]).astype(np.float32))
    np.testing.assert_array_equal(plain["observations"], shifted["observations"])
    for name, shift in (("returns_to_go", found.return_shift), ("costs_to_go", found.cost_shift)):
        np.testing.assert_allclose(shifted[name] - plain[name], np.tile(shift[:, None], 20), atol=1e-4)


@pytest.mark.parametrize("n_step", [1, 3])
def test_transitions_by_hand(n_step: int) -> None:
    data, discount = dataset(), 0.9
    batch = TransitionStore(data, None, n_step, discount).sample(100, 1, np.random.default_rng(0))
    for row in range(100):
        episode, step = batch["observation"][row].astype(int)
        steps = min(n_step, int(data.lengths[episode]) - step)
        rows, powers = data.starts[episode] + step + np.arange(steps), discount**np.arange(steps)
        assert batch["reward"][row] == pytest.approx((powers * data.rewards[rows]).sum(), abs=1e-5)
        assert batch["cost"][row] == pytest.approx((powers * data.costs[rows]).sum(), abs=1e-5)
        assert batch["next_observation"][row].tolist() == [episode, step + steps]
        assert batch["first_observation"][row].tolist() == [episode, 0]
        assert batch["terminal"][row] == (episode == 0 and step + steps == 5)
        assert batch["discount"][row] == pytest.approx(0 if batch["terminal"][row] else discount**steps, abs=1e-6)


def test_transitions_of_chosen_episodes() -> None:
    data = dataset()
    store = TransitionStore(data, np.array([False, True, True]))
    seen = {tuple(row) for row in store.sample(300, 1, np.random.default_rng(0))["observation"].astype(int)}
    assert seen == {(1, step) for step in range(3)} | {(2, step) for step in range(4)}
    with pytest.raises(DatasetError, match="none of 3 episodes passes"):
        TransitionStore(data, data.cost_returns < 0)
